"""Metrics against fractions computed by hand."""

from __future__ import annotations

import math

import pytest

from at2_rag_evals.metrics import (
    all_gold_in_top_3,
    gold_first,
    gold_ranks,
    ndcg_at_10,
    rank_by_score,
)

LOG3 = math.log2(3)


def labels(marks: str) -> list[bool]:
    return [mark == "g" for mark in marks]


@pytest.mark.parametrize(
    ("marks", "ndcg", "top_3"),
    [
        ("g---", 1.0, None),
        ("-g--", 1 / LOG3, None),
        ("------g---", 1 / 3, None),
        ("gg--", 1.0, 1.0),
        ("-gg-", (1 / LOG3 + 1 / 2) / (1 + 1 / LOG3), 1.0),
        ("--g---g-", (1 / 2 + 1 / 3) / (1 + 1 / LOG3), 0.0),
        ("gg-g", (1 + 1 / LOG3 + 1 / math.log2(5)) / (1 + 1 / LOG3 + 1 / 2), 0.0),
        ("----------g-", 0.0, None),
        ("g---------g-", 1 / (1 + 1 / LOG3), 0.0),
        ("g" * 12, 1.0, None),
    ],
)
def test_metrics_of_the_input_order(marks: str, ndcg: float, top_3: float | None) -> None:
    in_order = range(len(marks))
    assert ndcg_at_10(in_order, labels(marks)) == pytest.approx(ndcg, abs=1e-12)
    assert all_gold_in_top_3(in_order, labels(marks)) == top_3
    assert gold_first(in_order, labels(marks)) == float(marks[0] == "g")


def test_metrics_follow_the_ranking_not_the_input_order() -> None:
    assert ndcg_at_10((2, 0, 1), labels("--g")) == gold_first((2, 0, 1), labels("--g")) == 1.0
    assert ndcg_at_10((1, 2, 0), labels("--g")) == pytest.approx(1 / LOG3)
    assert all_gold_in_top_3((4, 3, 0, 1, 2), labels("---gg")) == 1.0
    assert gold_ranks((3, 0, 2, 1), labels("gg--")) == (2, 4)


def test_equal_scores_keep_input_order() -> None:
    assert rank_by_score([0.5, 2.0, 0.5, 2.0, 0.5]) == (1, 3, 0, 2, 4)
    assert rank_by_score([0.0] * 30) == tuple(range(30))
    assert rank_by_score([float("-inf"), 0.0, float("inf")]) == (2, 1, 0)
    # A measure that broke ties itself would judge these two by their chunks' names.
    for gold, expected in ((0, 1.0), (1, 1 / LOG3)):
        marks = [index == gold for index in range(2)]
        assert ndcg_at_10(rank_by_score([1.0, 1.0]), marks) == pytest.approx(expected)
    with pytest.raises(ValueError, match="score of chunk 1 is NaN"):
        rank_by_score([1.0, float("nan")])
