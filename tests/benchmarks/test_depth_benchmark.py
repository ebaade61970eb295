"""The depth benchmark, whole, on a tiny model: its figures must be those of training and of states.

What it adds, the comparison with the best design, is held against numbers by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import Chunk
from at2_rag.model.cache import CACHE_VARIABLE
from at2_rag.prompt.layout import PromptBuilder
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.planted_examples import planted_examples, write_examples

ROOT = Path(__file__).parents[2]
LAYERS, HEADS_OF_KEYS, DIM, BYTES = 3, 2, 8, 4  # of the tiny model
DEPTHS = (1, 2, 3)
SHARED = ("--masks", "6", "--answer-tokens", "4", "--folds", "4")


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", CACHE_VARIABLE: str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *command, "--model", str(folder / "tiny"), "--dtype", "float32"],
        capture_output=True,
        text=True,
        env=environment,
    )


def _benchmark(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return _run(folder, str(ROOT / "benchmarks" / "depth.py"), "--threads", "1", *options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    tiny_model(num_hidden_layers=LAYERS).save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    write_examples(folder / "train.jsonl", planted_examples(["novels", "seas"]))
    write_examples(folder / "dev.jsonl", planted_examples(["plays"], chunks=10))
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    files = ["--train", str(folder / "train.jsonl"), "--dev", str(folder / "dev.jsonl")]
    files += ["--data", str(folder / "dev.jsonl"), "--collected", str(folder / "collected")]
    done = _benchmark(
        folder,
        *files,
        *SHARED,
        *("--prompt-tokens", "50", "2000", "--output", str(folder / "out")),
        *("--depths", *map(str, DEPTHS)),
    )
    assert done.returncode == 0, done.stderr
    text = (folder / "out" / "depth.json").read_text(encoding="utf-8")
    assert str(folder) not in text + (folder / "out" / "depth.md").read_text(encoding="utf-8")
    assert (folder / "out" / "depth-1.svg").read_text(encoding="utf-8").startswith("<svg ")
    assert "](depth-1.svg)" in (folder / "out" / "depth.md").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("depth", DEPTHS)
def test_quality_is_that_of_a_training_run(
    folder: Path, report: dict[str, Any], depth: int
) -> None:
    done = _run(
        folder,
        *("-m", "at2_rag", "train", str(folder / "train.jsonl"), "--signal", "both"),
        *("--features", "log_mass:together+apart", "--objective", "mixed"),
        *("--depth", str(depth), "--collected", str(folder / "collected"), *SHARED),
        *("--dev", str(folder / "dev.jsonl"), "--output", str(folder / f"trained-{depth}")),
    )
    assert done.returncode == 0, done.stderr
    trained = json.loads((folder / f"trained-{depth}" / "training.json").read_text())
    [row] = [
        own
        for own in report["quality"]
        if own["design"] == {"passes": ["together", "apart"], "depth": depth}
    ]
    [best] = [own for own in trained["candidates"] if own["ridge"] == row["ridge"]]
    assert best["ndcg_at_10"] == max(own["ndcg_at_10"] for own in trained["candidates"])
    assert row["ndcg"]["mean"] == pytest.approx(best["ndcg_at_10"], abs=1e-4)
    assert row["by_source"] == pytest.approx(best["by_source"], abs=1e-4)
    assert row["dev"]["ndcg"] == pytest.approx(trained["dev"]["ndcg_at_10"], abs=1e-4)


def test_the_best_has_no_rival_and_the_choice_is_not_inferior(report: dict[str, Any]) -> None:
    rows = report["quality"]
    assert len(rows) == len(DEPTHS) * 2
    best = max(rows, key=lambda row: row["ndcg"]["mean"])
    assert report["best"] == best["design"]
    for row in rows:
        behind = row["ndcg"]["mean"] - best["ndcg"]["mean"]
        assert row["less_best"]["mean"] == pytest.approx(behind, abs=1e-12)
    costs = {json.dumps(own["design"]): own["cold"]["median"] for own in report["times"]}
    fitting = [
        json.dumps(row["design"])
        for row in rows
        if row["less_best"]["mean"] >= 0 or row["less_best"]["low"] > -0.0075
    ]
    assert report["cheapest_not_inferior"] == json.loads(min(fitting, key=costs.__getitem__))


def test_states_take_the_keys_of_all_layers_and_the_values_of_all_but_the_last(
    folder: Path, report: dict[str, Any]
) -> None:
    builder = PromptBuilder(tiny_tokenizer(), max_tokens=10**6)
    items = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()[:4]]
    texts = {chunk["text"] for item in items for chunk in item["chunks"]}
    tokens = np.mean([len(builder.windows([Chunk(text)])[0][0]) for text in texts])
    for own in report["times"]:
        layers = 2 * own["design"]["depth"] - 1
        expected = layers * HEADS_OF_KEYS * DIM * BYTES * tokens
        assert own["bytes_a_chunk"] == pytest.approx(expected)
        assert own["cold"]["n"] == 12 and own["cold_seconds"] > 0


def test_what_is_missing_is_one_line(folder: Path) -> None:
    done = _benchmark(folder, "--train", str(folder / "train.jsonl"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: pass --train FILE") and done.stderr.count("\n") == 1
