"""`at2-rag train --signal ablation|both`, from files to head weights, with a tiny real model."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from at2_rag.training import ablation_validation
from tests.training.test_train_command import (
    CHUNKS,
    QUERY,
    bytes_of,
    cache,
    place,
    process,
    provenance,
    pruner,
    results,
    train,
)

__all__ = ["cache", "place", "process"]

FEATURES = ("--features", "log_mass:together", "--masks", 6, "--answer-tokens", 4)
ABLATION = ("--signal", "ablation", *FEATURES)


@pytest.fixture(autouse=True)
def small_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model hardly heeds its chunks."""
    monkeypatch.setattr(ablation_validation, "LEAST_DROP", 1e-3)


def without_labels(folder: Path) -> Path:
    """Take labels and answers out of the data."""
    for path in folder.glob("*.jsonl"):
        items = [json.loads(line) for line in path.read_text().splitlines()]
        for item in items:
            item.pop("answers", None)
            for chunk in item["chunks"]:
                del chunk["is_gold"]
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def test_labels_and_answers_are_not_needed_and_change_nothing(place: Path, tmp_path: Path) -> None:
    done = train(place, *ABLATION, output=tmp_path / "labelled")
    assert done.exit_code == 0, done.stderr
    assert "objective" in done.stderr and "drops" in done.stderr and "pearson" in done.stderr
    bare = tmp_path / "bare"
    shutil.copytree(place / "tiny", bare / "tiny")
    (bare / "novels.jsonl").write_bytes((place / "novels.jsonl").read_bytes())
    (bare / "seas.jsonl").write_bytes(gzip.decompress((place / "seas.jsonl.gz").read_bytes()))
    without_labels(bare)
    (bare / "seas.jsonl.gz").write_bytes(gzip.compress((bare / "seas.jsonl").read_bytes()))
    done = train(bare, *ABLATION, output=tmp_path / "unlabelled")
    assert done.exit_code == 0, done.stderr
    weights = [
        (tmp_path / name / "head_weights.safetensors").read_bytes()
        for name in ("labelled", "unlabelled")
    ]
    assert weights[0] == weights[1]
    scores = [scored.score for scored in pruner(place, tmp_path / "labelled").score(QUERY, CHUNKS)]
    assert len(set(scores)) == 2


def test_what_was_ablated_is_on_record(place: Path, tmp_path: Path) -> None:
    done = train(place, *ABLATION, output=tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    facts = provenance(tmp_path / "out")
    assert (facts["signal"], facts["answers"], facts["masks"]) == ("ablation", "generated", 6)
    chosen = [row for row in results(tmp_path / "out") if row["chosen"]]
    assert len(chosen) == 1 and chosen[0]["objective"] in ("drops", "pearson")
    assert facts["cross_validation"]["faithfulness"] == chosen[0]["faithfulness"]
    assert chosen[0]["ndcg_at_10"] == max(row["ndcg_at_10"] for row in results(tmp_path / "out"))


def test_both_uses_labels_and_the_same_readings(place: Path, tmp_path: Path) -> None:
    shared = ("--collected", tmp_path / "readings")
    first = train(place, *ABLATION, *shared, output=tmp_path / "ablation")
    assert first.exit_code == 0, first.stderr
    before = bytes_of(tmp_path / "readings")
    done = train(place, "--signal", "both", *FEATURES, *shared, output=tmp_path / "both")
    assert done.exit_code == 0, done.stderr
    assert bytes_of(tmp_path / "readings") == before
    assert {row["objective"] for row in results(tmp_path / "both")} == {"mixed"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*ABLATION, "--reading", "joint"), "--signal ablation with --reading joint"),
        (("--signal", "both", "--reading", "joint"), "pass --reading independent"),
    ],
)
def test_joint_reading_is_refused(place: Path, tmp_path: Path, options: Any, message: str) -> None:
    done = train(place, *options, output=tmp_path / "out")
    assert done.exit_code == 1
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_evidence_still_needs_labels(place: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("novels.jsonl", "seas.jsonl.gz"):
        (bare / name).write_bytes((place / name).read_bytes())
    (bare / "tiny").symlink_to(place / "tiny")
    without_labels(bare)
    done = train(bare, *FEATURES[:2], output=tmp_path / "out")
    assert done.exit_code == 1
    assert "8 of 8 lines of " in done.stderr
    assert (
        "novels.jsonl can't be used: line 1: chunk 0: the key 'is_gold' is missing" in done.stderr
    )
