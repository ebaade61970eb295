"""Metrics against fractions worked out by hand."""

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
    ("marks", "expected"),
    [
        ("g---", 1.0),
        ("-g--", 1 / LOG3),
        ("--g-", 1 / 2),
        ("------g---", 1 / 3),
        ("g-g-", (1 + 1 / 2) / (1 + 1 / LOG3)),
        ("-gg-", (1 / LOG3 + 1 / 2) / (1 + 1 / LOG3)),
        ("gg--", 1.0),
        ("--g---g-", (1 / 2 + 1 / 3) / (1 + 1 / LOG3)),
        ("----------g-", 0.0),
        ("g---------g-", 1 / (1 + 1 / LOG3)),
        ("g" * 12, 1.0),
    ],
)
def test_ndcg_at_10(marks: str, expected: float) -> None:
    in_order = range(len(marks))
    assert ndcg_at_10(in_order, labels(marks)) == pytest.approx(expected, abs=1e-12)


def test_ndcg_follows_the_ranking_not_the_input_order() -> None:
    assert ndcg_at_10((2, 0, 1), labels("--g")) == 1.0
    assert ndcg_at_10((1, 2, 0), labels("--g")) == pytest.approx(1 / LOG3)


def test_gold_first() -> None:
    assert gold_first((0, 1), labels("g-")) == 1.0
    assert gold_first((1, 0), labels("g-")) == 0.0


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("g---", None),
        ("gg--", 1.0),
        ("g-g-", 1.0),
        ("g--g", 0.0),
        ("ggg-", 1.0),
        ("gg-g", 0.0),
        ("gggg", None),
    ],
)
def test_all_gold_in_top_3(marks: str, expected: float | None) -> None:
    assert all_gold_in_top_3(range(len(marks)), labels(marks)) == expected


def test_equal_scores_keep_input_order() -> None:
    assert rank_by_score([0.5, 2.0, 0.5, 2.0, 0.5]) == (1, 3, 0, 2, 4)
    assert rank_by_score([0.0] * 30) == tuple(range(30))
    assert rank_by_score([float("-inf"), 0.0, float("inf")]) == (2, 1, 0)
    # A measure that broke ties itself would judge these two by their chunks' names.
    for gold in (0, 1):
        marks = [index == gold for index in range(2)]
        expected = 1.0 if gold == 0 else 1 / LOG3
        assert ndcg_at_10(rank_by_score([1.0, 1.0]), marks) == pytest.approx(expected)


def test_a_nan_score_is_refused() -> None:
    with pytest.raises(ValueError, match="score of chunk 1 is NaN"):
        rank_by_score([1.0, float("nan")])


def test_gold_ranks() -> None:
    assert gold_ranks((3, 0, 2, 1), labels("gg--")) == (2, 4)
