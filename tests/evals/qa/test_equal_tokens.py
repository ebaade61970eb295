"""Comparisons at equal tokens, worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from at2_rag_evals.qa.equal_tokens import Mixture, matched
from at2_rag_evals.qa.judging import judge
from at2_rag_evals.qa.pruners.base import Pruned
from at2_rag_evals.qa.run import CellName, CellResult
from at2_rag_evals.qa.summary import GeneratorSummary, summarise
from at2_rag_evals.qa.tables import generator_section
from tests.evals.labelled_items import make_item
from tests.evals.qa.test_qa_summary import BASELINES, answer

NONE, CLOSED = CellName("none"), CellName("closed_book")
OURS = CellName("at2", "top 1", "score")
BM25 = [CellName("bm25", f"top {k}", "score") for k in (1, 3)]
BY_INPUT = [CellName("first_k", f"top {k}") for k in (1, 3)]


def tokens(**spent: float) -> Mapping[str, Mapping[str, float]]:
    labels = {
        "none": NONE.label,
        "closed": CLOSED.label,
        "ours": OURS.label,
        "bm25_1": BM25[0].label,
        "bm25_3": BM25[1].label,
    }
    return {"s": {labels[name]: value for name, value in spent.items()}}


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        ({"bm25_1": 102, "bm25_3": 300}, Mixture(BM25[0].label, BM25[0].label, 0.0, 102)),
        ({"bm25_1": 80, "bm25_3": 160}, Mixture(BM25[0].label, BM25[1].label, 0.25, 100)),
        ({"bm25_1": 125, "bm25_3": 300}, Mixture("closed_book", BM25[0].label, 0.8, 100)),
        ({"bm25_1": 40, "bm25_3": 90}, Mixture(BM25[1].label, "none", 10 / 910, 100)),
    ],
)
def test_a_close_cell_or_else_the_two_next_to_our_tokens(
    spent: Mapping[str, float], expected: Mixture
) -> None:
    matches = matched(
        OURS, [NONE, CLOSED, *BM25, OURS], tokens(none=1000, closed=0, ours=100, **spent)
    )
    assert set(matches) == {"bm25"}
    got = matches["bm25"]["s"]
    assert (got.low, got.high) == (expected.low, expected.high)
    assert (got.share, got.tokens) == pytest.approx((expected.share, expected.tokens))


def test_a_pruner_out_of_reach_in_one_source_is_left_out() -> None:
    within = tokens(ours=100, bm25_1=80, bm25_3=160)["s"]
    beyond = tokens(ours=100, bm25_1=110, bm25_3=160)["s"]
    cells = [*BM25, OURS]
    assert set(matched(OURS, cells, {"a": within})) == {"bm25"}
    assert matched(OURS, cells, {"a": within, "b": beyond}) == {}


def test_what_changes_texts_does_not_end_at_every_chunk_as_it_is() -> None:
    spent = tokens(none=1000, closed=0, ours=100, bm25_1=40, bm25_3=90)
    cells = [NONE, CLOSED, *BM25, OURS]
    assert set(matched(OURS, cells, spent)) == {"bm25"}
    assert matched(OURS, cells, spent, changing={"bm25"}) == {}


def test_orders_are_compared_with_the_same_order_and_with_none() -> None:
    original = [CellName("bm25", f"top {k}", "original") for k in (1, 3)]
    cells = [*BM25, *original, *BY_INPUT, OURS, CellName("at2", "top 1", "original")]
    spent = {cell.label: 100.0 for cell in cells}
    matches = matched(OURS, cells, {"s": spent})
    assert set(matches) == {"bm25", "first_k"}  # none of ours
    assert matches["bm25"]["s"].low == BM25[0].label
    other = matched(CellName("at2", "top 1", "original"), cells, {"s": spent})
    assert other["bm25"]["s"].low == original[0].label


def test_expected_accuracy_of_mixtures_enters_paired_differences() -> None:
    items = [make_item(str(n), "g---", source="ab"[n // 4], answers=("sea",)) for n in range(8)]

    def cell(name: CellName, hits: Sequence[int], spent: Sequence[int]) -> CellResult:
        return CellResult(
            "g",
            name,
            tuple(
                judge(item, Pruned((0,), 0.0), size, answer("sea" if hit else "x"))
                for item, hit, size in zip(items, hits, spent, strict=True)
            ),
        )

    results = [
        cell(BM25[0], [1, 0, 0, 0, 1, 1, 0, 0], [80] * 4 + [99] * 4),
        cell(BM25[1], [1, 1, 1, 0, 0, 0, 0, 0], [160] * 4 + [300] * 4),
        cell(OURS, [1, 1, 1, 0, 1, 1, 1, 1], [100] * 8),
    ]

    def summary_of(results: Sequence[CellResult]) -> GeneratorSummary:
        baselines = BASELINES | {"first_k"}
        return summarise(results, items=items, clusters=range(8), baselines=baselines, seed=0)

    summary = summary_of(results)
    matches = summary.equal_tokens[OURS.label]
    # a: 3/4 of .25 and 1/4 of .75 are .375, ours .75; b: within 2 %, .5 and ours 1.
    assert matches["a"]["bm25"].mean == pytest.approx(0.375)
    assert matches["b"]["bm25"].mean == pytest.approx(0.5)
    assert matches["macro"]["bm25"].mean == pytest.approx(0.4375)
    assert matches["b"]["bm25"].low is not None and matches["b"]["bm25"].low >= 0  # paired
    mixture = summary.mixtures[OURS.label]["bm25"]["a"]
    assert (mixture.low, mixture.high, mixture.share) == (BM25[0].label, BM25[1].label, 0.25)
    first = cell(BY_INPUT[1], [1] * 8, [300] * 8)  # out of reach, with nothing below
    [remark] = generator_section(summary_of([*results, first])).remarks
    assert remark.startswith("Not compared with at2, top 1 at equal tokens: first chunks, whose")
