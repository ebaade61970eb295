"""`at2-rag index` and `at2-rag cache`, and what `at2-rag prune` does with what they keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from at2_rag import AT2Pruner, ChunkCache
from at2_rag.cli.group import main
from at2_rag.errors import ChunkTypeError, InputError
from at2_rag.model.loading import LoadedModel
from tests.tiny_models import tiny_model, tiny_tokenizer

QUERY = "Who wrote Emma?"
TEXTS = ["The river flows to the sea.", "Jane Austen wrote Emma.", "The bridge spans the harbour."]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in [*TEXTS, TEXTS[0]]))
    return path


def run(*arguments: str | Path, input: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)


def prune(corpus: Path, *arguments: str | Path) -> dict[int, float]:
    """Return the scores of the kept chunks by their index in the corpus."""
    ran = run("prune", "-q", QUERY, "--top-k", "2", "--json", corpus, *arguments)
    assert ran.exit_code == 0, ran.stderr
    return {chunk["index"]: chunk["score"] for chunk in json.loads(ran.stdout)["kept"]}


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def test_a_corpus_is_read_once(corpus: Path, loading: list[str], cache: Path) -> None:
    fresh = prune(corpus, *loading)
    assert not cache.joinpath("chunk_states").exists(), "nothing is kept unasked"
    first = run("index", corpus, *loading)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("4 chunks: 3 states made now, 0 known; 3 states, ")
    assert first.stdout.endswith(f" GB in {cache / 'chunk_states'}\n")
    assert "chunks: 4/4" in first.stderr
    assert len(states(cache / "chunk_states")) == 3
    again = run("index", corpus, *loading)
    assert again.stdout.startswith("4 chunks: 0 states made now, 3 known; 3 states, ")
    assert prune(corpus, *loading) == pytest.approx(fresh)


def test_prune_reads_and_keeps_states(corpus: Path, loading: list[str], tmp_path: Path) -> None:
    fresh = prune(corpus, *loading, "--no-chunk-cache")
    kept = tmp_path / "kept"
    assert prune(corpus, *loading, "--chunk-cache", kept) == pytest.approx(fresh)
    assert len(states(kept)) == 3
    times = [path.stat().st_mtime_ns for path in states(kept)]
    assert prune(corpus, *loading, "--chunk-cache", kept) == pytest.approx(fresh)
    assert all(
        path.stat().st_mtime_ns > time for path, time in zip(states(kept), times, strict=True)
    )


def test_info_and_clear(corpus: Path, loading: list[str], cache: Path, tmp_path: Path) -> None:
    folder = cache / "chunk_states"
    assert run("cache", "info").stdout == f"0 states, 0 GB in {folder}\n"
    assert run("cache", "clear", "--yes").stdout == f"0 states removed from {folder}\n"
    assert not folder.exists()
    run("index", corpus, *loading, "--max-gb", "0.5")
    shown = run("cache", "info").stdout
    assert shown.startswith("3 states, ")
    assert shown.endswith(f" of at most 0.5 GB in {folder}\n")
    folder.joinpath("mine.txt").write_text("kept")
    assert run("cache", "clear", input="n\n").exit_code == 1
    assert len(states(folder)) == 3
    assert run("cache", "clear", "--yes").stdout == f"3 states removed from {folder}\n"
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    folder.joinpath("mine.txt").unlink()
    run("cache", "clear", "--yes")
    prune(corpus, *loading)
    assert not folder.exists(), "nothing is kept until it is asked for again"


def test_states_that_are_not_kept(corpus: Path, loading: list[str], tmp_path: Path) -> None:
    ran = run("index", corpus, *loading, "--chunk-cache", tmp_path / "all")
    largest = max(path.stat().st_size for path in states(tmp_path / "all"))
    ran = run("index", corpus, *loading, "--max-gb", str(1.5 * largest / 1e9))
    assert ran.exit_code == 0, ran.stderr
    assert "Not all states fit (2 were removed to keep the bound, 0 exceed" in ran.stderr
    ran = run("index", corpus, *loading, "--max-gb", "0.0000001")
    assert ran.exit_code == 0, ran.stderr
    message = " ".join(ran.stderr.split())
    assert "3 exceed it by themselves); pass --max-gb to keep more." in message
    for path in states(tmp_path / "all"):
        path.unlink()
        path.mkdir()
    ran = run("index", corpus, *loading, "--chunk-cache", tmp_path / "all")
    assert ran.exit_code == 1
    assert "3 states could not be written; free some space or pass another" in ran.stderr


def test_what_is_refused(corpus: Path, loading: list[str], tmp_path: Path) -> None:
    for options in (["--chunk-cache", tmp_path, "--no-chunk-cache"], ["--json", "--price", "1"]):
        ran = run("prune", "-q", QUERY, "--top-k", "1", corpus, *loading, *options)
        assert ran.exit_code == 2 and "can't be used together; pass one." in ran.stderr
    ran = run("index", corpus, *loading, "--reading", "joint")
    assert ran.exit_code == 1 and "read jointly" in ran.stderr


# --- the method ---------------------------------------------------------------------------------


def make(**options: Any) -> AT2Pruner:
    return AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights="uniform", **options)


def test_many_chunks_are_taken_in_as_they_are_needed() -> None:
    store, taken = ChunkCache(), 0
    pruner = make(chunk_cache=store)
    steps: list[tuple[int, int]] = []

    def chunks() -> Iterator[str]:
        nonlocal taken
        for number in range(150):
            taken += 1
            yield f"The river {number} flows to the sea."

    pruner.index(chunks(), progress=lambda done: steps.append((done, taken)))
    assert steps == [(64, 64), (128, 128), (150, 150)]
    assert len(store) == 150


def test_a_long_chunk_is_kept_in_windows_whatever_the_question() -> None:
    store = ChunkCache()
    model = LoadedModel(tiny_model("gpt2", n_positions=512), tiny_tokenizer())
    pruner = AT2Pruner(model, head_weights="uniform", chunk_cache=store)
    long = "The river flows through the old town to the sea. " * 60
    pruner.index([long])
    misses = store.counts.misses
    assert misses > 1
    for query in ("where?", "where does the river flow, and through which town?"):
        pruner.score(query, [long])
    assert store.counts.misses == misses


def test_what_cannot_be_indexed() -> None:
    with pytest.raises(InputError, match="read jointly"):
        make(chunk_cache={}, reading="joint").index(TEXTS)
    with pytest.raises(InputError, match="chunks is a str; pass a list of chunks"):
        make(chunk_cache={}).index("text")
    store = ChunkCache()
    with pytest.raises(ChunkTypeError, match="chunk 1 "):
        make(chunk_cache=store).index(["text", 7])  # type: ignore[list-item]
    assert len(store) == 0
    make(chunk_cache=store).index([])
    assert len(store) == 0
