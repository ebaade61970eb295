"""`at2-rag ray index`, `collect` and `eval`: what they leave is what one process does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("ray", reason="the extra ray isn't installed")

import ray

from at2_rag import ChunkCache, LoadedModel
from at2_rag.cli.group import main
from at2_rag.cli.passages import DEFAULT_COLUMNS
from at2_rag.ray.indexing import Form, parts_of, read_part
from tests.tiny_weights import random_weights
from tests.training.commands.train_runs import bytes_of, lasting
from tests.training.planted_examples import planted_examples, write_examples

CHUNKS = [f"Chunk {number} 🌊 " + "of the sea " * (number % 7) for number in range(120)]
FORM = Form(None, DEFAULT_COLUMNS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster with two CPUs, which commands find since this process is connected."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps(text, ensure_ascii=False) for text in CHUNKS]
    path.write_text("\n".join(lines[:50]) + "\n\n" + "\n".join(lines[50:]), encoding="utf-8")
    return path


@pytest.mark.parametrize("part_bytes", [1, 7, 60, 1000, 10**6])
def test_parts_hold_each_line_once(corpus: Path, part_bytes: int) -> None:
    parts = list(parts_of(corpus, part_bytes=part_bytes))
    assert sum(part.size for part in parts) == corpus.stat().st_size
    assert len(parts) == -(-corpus.stat().st_size // part_bytes)
    assert [text for part in parts for text in read_part(part, FORM)] == CHUNKS


def test_other_files_are_one_part(tmp_path: Path) -> None:
    for name, content in (("a.txt", "One.\n\nTwo."), ("a.csv", "text\nOne.\nTwo.\n")):
        path = tmp_path / name
        path.write_text(content)
        [part] = parts_of(path, part_bytes=2)
        assert len(read_part(part, FORM)) == 2


@pytest.mark.usefixtures("cluster")
def test_indexing_by_two_goes_on_where_it_was(
    corpus: Path, loading: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("at2_rag.ray.indexing.PART_BYTES", 500)
    half, more = tmp_path / "half.jsonl", tmp_path / "more.txt"
    half.write_text("\n".join(map(json.dumps, CHUNKS[:60])))
    more.write_text("Another.")
    options: list[str | Path] = [*loading, "--dtype", "float32", "--chunk-cache"]
    assert run("index", half, *options, tmp_path / "states").exit_code == 0
    ran = run("ray", "index", corpus, more, "--actors", "2", *options, tmp_path / "states")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith("121 chunks: 61 states made now, 60 known; 121 states, ")
    again = run("ray", "index", corpus, more, *options, tmp_path / "states")
    assert again.stdout.startswith("121 chunks: 0 states made now, 121 known; 121 states, ")
    assert run("index", corpus, more, *options, tmp_path / "by-one").exit_code == 0
    assert set(ChunkCache(tmp_path / "states")) == set(ChunkCache(tmp_path / "by-one"))


@pytest.mark.usefixtures("cluster")
def test_a_line_that_is_no_chunk_is_named(tmp_path: Path, loading: list[str]) -> None:
    corpus, fine = tmp_path / "corpus.jsonl", tmp_path / "fine.jsonl"
    corpus.write_text('"fine"\n{"text": 5}\n')
    fine.write_text('"fine"\n')
    ran = run("ray", "index", fine, corpus, fine, *loading, "--chunk-cache", tmp_path / "states")
    assert ran.exit_code == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith(f"Error: {corpus}, line 2: ")


@pytest.mark.usefixtures("cluster")
def test_collecting_by_two_is_what_training_collects(model_folder: Path, tmp_path: Path) -> None:
    loaded = LoadedModel.from_pretrained(model_folder)
    random_weights(loaded.model, loaded.tokenizer, "late").save(tmp_path / "late")
    files = [tmp_path / f"{source}.jsonl" for source in ("novels", "seas", "towns")]
    for path in files:
        write_examples(path, planted_examples([path.stem]))
    options: list[str | Path] = [*files[:2], "--dev", files[2], "--model", model_folder]
    options += ["--dtype", "float32", "--features", "log:late+together"]
    options += ["--shortlist", tmp_path / "late"]
    fit: list[str | Path] = ["train", *options, "--folds", "2", "--collected"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert run(*fit, alone, "--output", tmp_path / "by-one").exit_code == 0
    collect: list[str | Path] = ["ray", "collect", *options, "--actors", "2"]
    ran = run(*collect, "--collected", shared)
    assert ran.exit_code == 0, ran.output
    shards = sorted(shared.rglob("shard-*"))
    assert ran.stdout == f"{len(shards)} shards read now; all that is fitted to is in {shared}\n"
    assert len({path.parent for path in shards}) == 4, "late and others, each also of dev"
    assert bytes_of(shared) == bytes_of(alone)
    for path in shards[::2]:
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in shards[1::2]}
    again = run(*collect, "--collected", shared)
    assert again.stdout.startswith(f"{len(shards[::2])} shards read now"), again.output
    assert bytes_of(shared) == bytes_of(alone)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    written = {path: path.stat().st_mtime_ns for path in shards}
    assert run(*fit, shared, "--output", tmp_path / "by-two").exit_code == 0
    assert written == {path: path.stat().st_mtime_ns for path in shards}
    assert lasting(tmp_path / "by-two") == lasting(tmp_path / "by-one")


@pytest.mark.usefixtures("cluster")
def test_what_cannot_be_collected_is_said_in_one_line(model_folder: Path, tmp_path: Path) -> None:
    questions = write_examples(tmp_path / "questions.jsonl", planted_examples())
    options: list[str | Path] = [questions, "--model", model_folder, "--depth", "1"]
    options += ["--collected", tmp_path / "out"]
    ran = run("ray", "collect", *options, "--masks", "4")
    assert ran.exit_code == 1 and "which ablates nothing" in ran.stderr
    assert run("ray", "collect", *options).exit_code == 0
    ran = run("ray", "collect", *options, "--seed", "1")
    assert ran.exit_code == 1 and "seed: 0 there, 1 now" in ran.stderr.splitlines()[-1]


@pytest.mark.usefixtures("cluster")
def test_too_few_cpus_are_an_error_at_once(corpus: Path) -> None:
    ran = run("ray", "index", corpus, "--cpus", "3")
    assert ran.exit_code == 1 and "3 CPUs, and the cluster has 2" in ran.stderr
    ran = run("ray", "serve", "--replicas", "3", "--port", "18080")
    assert ran.exit_code == 1 and "3 replicas of 1 CPUs are wanted" in ran.stderr
    ran = run("ray", "eval", corpus, "--actors", "3")
    assert ran.exit_code == 1 and "--actors is 3, and the cluster has CPUs for 2" in ran.stderr


@pytest.mark.usefixtures("cluster")
def test_an_eval_is_that_of_one_machine(
    tmp_path: Path, model_folder: Path, weights_folder: Path
) -> None:
    pytest.importorskip("ir_measures", reason="the extra evals isn't installed")
    questions, output = tmp_path / "questions.jsonl", tmp_path / "out"
    write_examples(questions, planted_examples())
    options: list[str | Path]
    options = [questions, "--model", model_folder, "--head-weights", weights_folder, "--json"]
    options += ["--system", "at2", "--system", "first_k", "--system", "bm25"]
    there = run("ray", "eval", *options, "--output", output)  # each system by all that fit
    assert there.exit_code == 0, there.output
    here = run("eval", "ranking", *options)
    assert here.exit_code == 0, here.output
    by_command = []
    for ran in (there, here):
        sets = json.loads(ran.stdout)["sets"]
        for each in sets:
            del each["systems"]  # which have times
        by_command.append(sets)
    assert by_command[0] == by_command[1]
    again = run("eval", "ranking", *options, "--output", output)
    assert json.loads(again.stdout)["sets"] == json.loads(there.stdout)["sets"], "scores are stored"
