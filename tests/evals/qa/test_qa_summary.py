"""Figures of planted results, worked out by hand or by a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.judging import judge
from at2_rag_evals.qa.pruners.base import Pruned
from at2_rag_evals.qa.run import CellName, CellResult
from at2_rag_evals.qa.summary import (
    DISTRACTORS,
    POSITIONS,
    GeneratorSummary,
    distractor_group,
    position_group,
)
from at2_rag_evals.qa.summary import summarise as summarise_cells
from tests.evals.labelled_items import make_item

BASELINES = frozenset({"none", "bm25", "oracle"})


def answer(text: str, *, seconds: float = 2.0, attempts: int = 1) -> Answer:
    return Answer(text, 100, 10, seconds, seconds / 4, 3 * seconds / 4, attempts)


def item(
    id: str, source: str = "s", marks: str = "g---", answers: Sequence[str] = ("sea",)
) -> Example:
    return make_item(id, marks, source=source, answers=answers)


def cell(
    items: Sequence[Example], pruner: str, texts: Sequence[str | None], kept: Sequence[int] = (0,)
) -> CellResult:
    results = [Failure("down") if text is None else answer(text) for text in texts]
    judged = [
        judge(item, Pruned(tuple(kept), 0.5), 40, result)
        for item, result in zip(items, results, strict=True)
    ]
    budget = None if pruner in ("none", "oracle") else "top 1"
    return CellResult("g", CellName(pruner, budget), tuple(judged))


def summarise(
    items: Sequence[Example],
    results: Sequence[CellResult],
    prices: tuple[float, float] | None = None,
) -> GeneratorSummary:
    return summarise_cells(
        results,
        items=items,
        clusters=range(len(items)),
        baselines=BASELINES,
        seed=0,
        prices=prices,
    )


def test_means_macro_and_differences_by_hand() -> None:
    items = [item(str(n), "a" if n < 4 else "b") for n in range(6)]
    none = cell(items, "none", ["sea", "x", "x", "x", "x", "x"], kept=(0, 1, 2, 3))
    ours = cell(items, "at2", ["sea", "sea", "x", "x", "the sea", "x"], kept=(1,))
    figures = summarise(items, [none, ours], (3.0, 15.0))
    accuracy = figures.by_source["accuracy"]
    assert {group: cells["none"].mean for group, cells in accuracy.items()} == {
        "a": 0.25,
        "b": 0.0,
        "macro": 0.125,
    }
    assert accuracy["macro"]["at2, top 1"].mean == 0.5
    assert list(figures.differences) == ["none", "at2, top 1"]
    assert figures.differences["at2, top 1"]["macro"]["none"].mean == 0.375
    assert figures.differences["none"]["a"]["at2, top 1"].mean == -0.25
    recall = figures.by_source["gold_recall"]["macro"]
    assert (recall["none"].mean, recall["at2, top 1"].mean) == (1.0, 0.0)
    totals = figures.totals["none"]
    assert totals is not None
    assert (totals.context_tokens, totals.prompt_tokens, totals.new_tokens) == (40, 100, 10)
    assert (totals.prune_seconds, totals.prefill_seconds, totals.decode_seconds) == (0.5, 0.5, 1.5)
    assert totals.cost == pytest.approx((600 * 3 + 60 * 15) / 1e6)
    assert figures.by_position["first"]["none"].n == 6
    assert figures.by_distractors["1-4"]["none"].mean == pytest.approx(1 / 6)


def test_macro_tokens_are_of_the_sources_that_accuracy_is_of() -> None:
    items = [
        *(make_item(str(n), "g---", source="a", answers=("sea",)) for n in range(2)),
        replace(make_item("u", "----", source="b"), unanswerable=True),
    ]
    judged = [
        judge(item, Pruned((0,), 0.5), size, answer("x"))
        for item, size in zip(items, (10, 30, 500), strict=True)
    ]
    figures = summarise(items, [CellResult("g", CellName("none"), tuple(judged))])
    assert {source: cells["none"] for source, cells in figures.context_tokens.items()} == {
        "a": 20,
        "b": 500,
        "macro": 20,
    }
    alone = summarise(items[2:], [CellResult("g", CellName("none"), tuple(judged[2:]))])
    assert alone.context_tokens["macro"]["none"] == 500


def test_an_item_without_an_answer_is_left_out_of_every_cell_and_counted() -> None:
    items = [item(str(n)) for n in range(4)]
    none = cell(items, "none", ["sea", None, "x", "sea"])
    ours = cell(items, "at2", ["x", "sea", None, "sea"])
    figures = summarise(items, [none, ours])
    accuracy = figures.by_source["accuracy"]["s"]
    assert (accuracy["none"].n, accuracy["none"].mean, accuracy["at2, top 1"].mean) == (2, 1, 0.5)
    assert figures.unanswered == {"no answer from none": 1, "no answer from at2, top 1": 1}
    totals = figures.totals["none"]
    assert totals is not None and totals.failed == 1
    nothing = summarise(items, [cell(items, "none", [None] * 4)])
    assert nothing.totals == {"none": None} and nothing.by_source["accuracy"] == {}


def test_each_kind_of_item_has_its_own_metrics() -> None:
    chunks, labels = (Chunk("x"), Chunk("y")), (True, False)
    short = Example("1", "s", "q", chunks, labels, ("old sea",))
    long = Example("2", "s", "q", chunks, labels, ("the old sea",), long_form=True)
    none = Example("3", "s", "q", chunks, (False, False), (), unanswerable=True)

    def defined(example: Example, text: str) -> dict[str, float]:
        metrics = judge(example, Pruned((0,), 0.0), 1, answer(text)).metrics
        return {name: value for name, value in metrics.items() if value is not None}

    assert defined(short, "sea, old sea") == {
        "accuracy": 1,
        "exact_match": 0,
        "f1": pytest.approx(4 / 5),
        "false_abstention": 0,
        "gold_recall": 1,
    }
    assert defined(long, "I don't know") == {
        "long_form_f1": 0,
        "false_abstention": 1,
        "gold_recall": 1,
    }
    assert defined(none, "I don't know") == {"abstention": 1}


@pytest.mark.parametrize(
    ("marks", "position", "distractors"),
    [
        ("g", "first", "0"),
        ("g-", "first", "1-4"),
        ("-g", "last", "1-4"),
        ("--g--", "first half", "1-4"),
        ("-g----", "first half", "5-9"),
        ("---g--", "second half", "5-9"),
        ("g--g", "several gold chunks", "1-4"),
        ("-" * 10, "no gold chunk", "10-19"),
        ("g" + "-" * 50, "first", ">49"),
    ],
)
def test_groups_by_hand(marks: str, position: str, distractors: str) -> None:
    marked = make_item("a", marks)
    assert position_group(marked) == position and position in POSITIONS
    assert distractor_group(marked) == distractors and distractors in DISTRACTORS
