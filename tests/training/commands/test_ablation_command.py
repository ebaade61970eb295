"""`at2-rag train --signal ablation|both`, from files to head weights, with a tiny real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from at2_rag import HeadWeights
from at2_rag.training.commands.record import PAGE_FILE
from at2_rag.training.fitting import samples
from tests.training.commands.train_runs import (
    CHUNKS,
    FILES,
    QUERY,
    bytes_of,
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
FEATURES = ("--features", "log_mass:together")
ABLATION = ("--signal", "ablation", *FEATURES, *SMALL)


@pytest.fixture(autouse=True)
def small_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model hardly heeds its chunks."""
    monkeypatch.setattr(samples, "LEAST_CONTRIBUTION", 1e-3)


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Where runs with the same plan keep what they read."""
    return ("--collected", tmp_path_factory.mktemp("readings"))


def test_labels_and_answers_are_not_needed_and_change_nothing(
    data: Path, readings: tuple[str, Path], tmp_path: Path
) -> None:
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    (unlabelled / "tiny").symlink_to(data / "tiny")
    for name, source in zip(FILES, ("novels", "seas"), strict=True):
        write_examples(unlabelled / name, planted_examples([source]), labelled=False)
    labelled = trained(data, *ABLATION, *readings, output=tmp_path / "labelled")
    bare = trained(unlabelled, *ABLATION, output=tmp_path / "bare")
    assert (HeadWeights.load(labelled).weight == HeadWeights.load(bare).weight).all()
    scores = [scored.score for scored in pruner(data, labelled).score(QUERY, CHUNKS)]
    assert len(set(scores)) == 2
    line = last_line(train(unlabelled, *FEATURES, output=tmp_path / "evidence"))
    assert "8 of 8 lines of " in line and "the key 'is_gold' is missing" in line


def test_both_uses_labels_and_the_same_readings(
    data: Path, readings: tuple[str, Path], tmp_path: Path
) -> None:
    first = trained(data, *ABLATION, *readings, output=tmp_path / "ablation")
    before = bytes_of(readings[1])
    second = trained(data, *ABLATION, "--signal", "both", *readings, output=tmp_path / "both")
    assert bytes_of(readings[1]) == before
    objectives = [
        {row["objective"] for row in record(output)["candidates"]} for output in (first, second)
    ]
    assert objectives[0] == {"contributions", "drops", "pearson"}
    assert objectives[1] == {"mixed", "evidence", "contributions"}
    facts, best = provenance(first), chosen(first)
    assert (facts["signal"], facts["answers"], facts["masks"]) == ("ablation", "generated", 6)
    assert facts["cross_validation"]["faithfulness"] == best["faithfulness"] is not None
    figures = record(first)["learning_curve"][-1]["figures"]
    assert figures == {name: best[name] for name in ("ndcg_at_10", "faithfulness")}


@pytest.mark.parametrize(
    ("options", "reading", "over"),
    [
        (
            ("--signal", "ablation", *FEATURES),
            "independent",
            "chunks that add at least 0.001 nats to the log-likelihood of the question",
        ),
        (
            ("--signal", "ablation", "--target", "answer", "--features", "mass:joint"),
            "joint",
            "chunks that add at least 0.001 nats to the log-likelihood of the answer",
        ),
    ],
)
def test_record_and_page_say_what_was_judged_and_for_which_reading(
    data: Path,
    readings: tuple[str, Path],
    tmp_path: Path,
    options: tuple[str, ...],
    reading: str,
    over: str,
) -> None:
    trained(data, *options, *SMALL, *readings, output=tmp_path)
    assert (record(tmp_path)["reading"], record(tmp_path)["judged_over"]) == (reading, over)
    assert HeadWeights.load(tmp_path).reading == reading
    page = (tmp_path / PAGE_FILE).read_text()
    assert f"{over} count as relevant." in page and f"<dd>{reading}</dd>" in page
    facts = provenance(tmp_path)
    assert (facts["answers"], facts["answer_tokens"], facts["masks"]) == ("generated", 4, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*ABLATION, "--reading", "joint"), "pass the reading 'independent' instead of 'joint'"),
        (("--signal", "ablation", "--target", "answer", "--dev", FILES[0]), "leave out --dev"),
        ((*FEATURES, "--masks", 32), "--masks 32 with --signal evidence"),
        ((*FEATURES, "--answer-tokens", 3), "--answer-tokens 3 with --signal evidence"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    data: Path, tmp_path: Path, options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert message in last_line(train(data, *options, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_ablated_is_left_out_and_on_record(data: Path, tmp_path: Path) -> None:
    """One example each that has one chunk, is too long, and has no answer."""
    (tmp_path / "tiny").symlink_to(data / "tiny")
    good = planted_examples(["novels"], each=8)
    alone = planted_examples(["alone"], each=1, chunks=1)  # nothing of its source to add
    long = replace(good[0], id="long", query="river " * 3000)
    silent = replace(good[1], id="silent", answers=("  ",))
    write_examples(tmp_path / FILES[0], [*good, *alone, long, silent])
    write_examples(tmp_path / FILES[1], planted_examples(["seas"]))
    output = trained(tmp_path, *ABLATION, "--answers", "reference", output=tmp_path / "out")
    expected = {
        "fewer than two chunks": 1,
        "longer than the model's window": 1,
        "no answer": 1,
    }
    assert record(output)["left_out"] == provenance(output)["left_out"] == expected
    assert record(output)["samples"] == {"novels": 8, "seas": 8}
    page = (output / PAGE_FILE).read_text()
    assert "1 fewer than two chunks" in page and "Faithfulness" in page


def test_one_mask_leaves_faithfulness_open(data: Path, tmp_path: Path) -> None:
    dev = write_examples(tmp_path / "dev.jsonl", planted_examples(["lakes"], each=4))
    output = trained(data, *ABLATION, "--masks", 1, "--dev", dev, output=tmp_path / "out")
    assert {row["faithfulness"] for row in record(output)["candidates"]} == {None}
    assert provenance(output)["cross_validation"]["faithfulness"] is None
    assert record(output)["dev"]["examples"] == {"lakes": 4}
