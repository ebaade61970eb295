"""`at2-rag ray index` and `eval`: what they leave is what one process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from at2_rag import ChunkCache
from at2_rag.cli.group import main
from at2_rag.cli.passages import DEFAULT_COLUMNS
from at2_rag.ray.indexing import Form, parts_of, read_part
from tests.training.planted_examples import planted_examples, write_examples

CHUNKS = [f"Chunk {number} 🌊 " + "of the sea " * (number % 7) for number in range(120)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps(text, ensure_ascii=False) for text in CHUNKS]
    path.write_text("\n".join(lines[:50]) + "\n\n" + "\n".join(lines[50:]), encoding="utf-8")
    return path


@pytest.mark.parametrize("part_bytes", [1, 7, 60, 1000, 10**6])
def test_parts_hold_each_line_once(corpus: Path, part_bytes: int) -> None:
    form = Form(None, DEFAULT_COLUMNS)
    parts = list(parts_of(corpus, part_bytes=part_bytes))
    assert sum(part.size for part in parts) == corpus.stat().st_size
    assert [text for part in parts for text in read_part(part, form)] == CHUNKS


def test_other_files_are_one_part(tmp_path: Path) -> None:
    for name, content in (("a.txt", "One.\n\nTwo."), ("a.csv", "text\nOne.\nTwo.\n")):
        path = tmp_path / name
        path.write_text(content)
        [part] = parts_of(path, part_bytes=2)
        assert len(read_part(part, Form(None, DEFAULT_COLUMNS))) == 2


def at2_rag(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command of at2-rag, on a cluster of its own."""
    return subprocess.run(
        [sys.executable, "-m", "at2_rag", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "AT2_RAG_CONFIG": os.devnull, "RAY_ADDRESS": "local"},
        timeout=1800,
    )


def test_indexing_by_two_goes_on_where_it_was(
    corpus: Path, loading: list[str], tmp_path: Path
) -> None:
    folder, more = tmp_path / "states", tmp_path / "more.jsonl"
    options = ["--dtype", "float32", "--actors", "2", "--chunk-cache", folder]
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(map(json.dumps, CHUNKS[:60])))
    first = CliRunner().invoke(
        main, list(map(str, ["index", half, *loading, *options[:2], *options[4:]]))
    )
    assert first.exit_code == 0, first.output
    more.write_text('"another"\n')
    whole = at2_rag("ray", "index", corpus, more, *loading, *options)
    assert whole.returncode == 0, whole.stderr[-3000:]
    line = next(line for line in whole.stdout.splitlines() if "states made now" in line)
    assert line.startswith("121 chunks: 61 states made now, 60 known; 121 states, ")
    by_one = tmp_path / "by-one"
    again = CliRunner().invoke(
        main,
        list(
            map(
                str,
                ["index", corpus, more, *loading, "--dtype", "float32", "--chunk-cache", by_one],
            )
        ),
    )
    assert again.exit_code == 0, again.output
    assert set(ChunkCache(folder)) == set(ChunkCache(by_one))


def test_a_line_that_is_no_chunk_is_named(tmp_path: Path, loading: list[str]) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('"fine"\n{"text": 5}\n')
    ran = at2_rag(
        "ray", "index", corpus, *loading, "--actors", "1", "--chunk-cache", tmp_path / "states"
    )
    assert ran.returncode == 1
    assert f"Error: {corpus}, line 2: " in ran.stderr and "Traceback" not in ran.stderr


def test_an_eval_is_that_of_one_machine(
    tmp_path: Path, model_folder: Path, weights_folder: Path
) -> None:
    write_examples(tmp_path / "questions.jsonl", planted_examples())
    options = ["--model", model_folder, "--head-weights", weights_folder, "--system", "at2"]
    options += ["--system", "first_k", "--json"]
    there = at2_rag(
        *("ray", "eval", tmp_path / "questions.jsonl", *options, "--actors", "2"),
        *("--output", tmp_path / "out"),
    )
    assert there.returncode == 0, there.stderr[-3000:]
    here = CliRunner().invoke(
        main, ["eval", "ranking", str(tmp_path / "questions.jsonl"), *map(str, options)]
    )
    assert here.exit_code == 0, here.output
    figures = [json.loads(each)["sets"] for each in (there.stdout, here.stdout)]
    for sets in figures:
        for each in sets:
            del each["systems"]  # which have times
    assert figures[0] == figures[1]
