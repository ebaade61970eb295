"""`at2-rag train --signal ablation|both`, from files to head weights, with a tiny real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from at2_rag import HeadWeights
from at2_rag.training.collection.ablations import ANSWERS_FOLDER
from at2_rag.training.commands.record import PAGE_FILE
from at2_rag.training.fitting import samples
from tests.training.commands.train_runs import (
    CHUNKS,
    FILES,
    QUERY,
    chosen,
    last_line,
    provenance,
    pruner,
    record,
    train,
    trained,
)
from tests.training.planted_examples import planted_examples, write_examples

SMALL = ("--masks", 6, "--answer-tokens", 4)
FEATURES = ("--features", "log:together")
ABLATION = ("--signal", "ablation", *FEATURES, *SMALL)


@pytest.fixture(autouse=True)
def small_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model hardly heeds its chunks."""
    monkeypatch.setattr(samples, "LEAST_CONTRIBUTION", 1e-3)


def test_labels_and_answers_are_not_needed_and_change_nothing(data: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    (unlabelled / "tiny").symlink_to(data / "tiny")
    for name, source in zip(FILES, ("novels", "seas"), strict=True):
        write_examples(unlabelled / name, planted_examples([source]), labelled=False)
    labelled = trained(data, *ABLATION, output=tmp_path / "labelled")
    bare = trained(unlabelled, *ABLATION, output=tmp_path / "bare")
    assert (HeadWeights.load(labelled).weight == HeadWeights.load(bare).weight).all()
    scores = [scored.score for scored in pruner(data, labelled).score(QUERY, CHUNKS)]
    assert len(set(scores)) == 2
    assert {row["depth"] for row in record(labelled)["candidates"]} == {2}  # 60 % of 3 layers
    facts, best = provenance(labelled), chosen(labelled)
    assert (facts["signal"], facts["answers"], facts["masks"]) == ("ablation", "generated", 6)
    assert facts["cross_validation"]["faithfulness"] == best["faithfulness"] is not None
    line = last_line(train(unlabelled, *FEATURES, output=tmp_path / "evidence"))
    assert "8 of 8 lines of " in line and "the key 'is_gold' is missing" in line


def test_record_and_page_say_what_was_judged_and_for_which_reading(
    data: Path, tmp_path: Path
) -> None:
    options = ("--signal", "ablation", "--target", "answer", "--features", "mass:joint")
    trained(data, *options, *SMALL, output=tmp_path)
    over = "chunks that add at least 0.001 nats to the log-likelihood of the answer"
    assert (record(tmp_path)["reading"], record(tmp_path)["judged_over"]) == ("joint", over)
    weights = HeadWeights.load(tmp_path)
    assert (weights.reading, weights.target_rule) == ("joint", "answer")
    assert (tmp_path / "features" / ANSWERS_FOLDER / "collection.json").exists()
    page = (tmp_path / PAGE_FILE).read_text()
    assert f"{over} count as relevant." in page and "<dd>joint</dd>" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--signal", "ablation", "--target", "answer", "--dev", FILES[0]), "leave out --dev"),
        ((*FEATURES, "--masks", 32), "--masks 32 with --signal evidence"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    data: Path, tmp_path: Path, options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert message in last_line(train(data, *options, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_one_mask_leaves_faithfulness_open_and_what_is_left_out_is_on_record(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny").symlink_to(data / "tiny")
    alone = planted_examples(["alone"], each=1, chunks=1)  # nothing of its source to add
    write_examples(tmp_path / FILES[0], [*planted_examples(["novels"]), *alone])
    write_examples(tmp_path / FILES[1], planted_examples(["seas"]))
    output = trained(tmp_path, *ABLATION, "--masks", 1, output=tmp_path / "out")
    assert record(output)["left_out"] == {"fewer than two chunks": 1}
    assert "1 fewer than two chunks" in (output / PAGE_FILE).read_text()
    assert {row["faithfulness"] for row in record(output)["candidates"]} == {None}
    assert provenance(output)["cross_validation"]["faithfulness"] is None
