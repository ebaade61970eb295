"""From ratings to figures, against means computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from at2_rag.data.bootstrap import Estimate
from at2_rag_evals.items import ItemSet
from at2_rag_evals.metrics import METRICS
from at2_rag_evals.ranking.rating import RatedSet, Rating
from at2_rag_evals.ranking.report import summary_tables
from at2_rag_evals.ranking.summary import SetSummary, size_range, summarise
from at2_rag_evals.report import difference_cell, estimate_cell
from at2_rag_evals.tables import to_markdown
from tests.evals.labelled_items import make_item

LOG3 = math.log2(3)
MARKS = ["g---", "-g--", "g-g-", "-------g"]
# Two items of one source, two of the other; each system's ranking of each.
ITEMS = [
    make_item(str(index), marks, source="a" if index < 2 else "b")
    for index, marks in enumerate(MARKS)
]
IN_ORDER = [tuple(range(len(marks))) for marks in MARKS]
REVERSED = [ranking[::-1] for ranking in IN_ORDER]


def rate(rankings: Sequence[Sequence[int]]) -> tuple[Rating, ...]:
    return tuple(
        Rating(
            metrics={name: metric(ranking, item.labels) for name, metric in METRICS.items()},
            gold_ranks=(),
            truncated=2,
            seconds=float(index),
        )
        for index, (ranking, item) in enumerate(zip(rankings, ITEMS, strict=True))
    )


def summary_of(**rankings: Sequence[Sequence[int]]) -> SetSummary:
    item_set = ItemSet("natural size", tuple(ITEMS), {"a": {"no gold chunk": 3}})
    rated = RatedSet(item_set, {name: rate(each) for name, each in rankings.items()})
    clusters = {(item.source, item.id): index for index, item in enumerate(ITEMS)}
    return summarise(rated, clusters, seed=0)


@pytest.fixture(scope="module")
def summary() -> SetSummary:
    return summary_of(first_k=IN_ORDER, at2=REVERSED)


def means(figures: object) -> object:
    if isinstance(figures, dict):
        return {key: means(value) for key, value in figures.items()}
    return getattr(figures, "mean", figures)


def test_macro_is_the_mean_of_the_sources_means(summary: SetSummary) -> None:
    assert means(summary.by_source["gold_first"]) == {
        "a": {"first_k": 1 / 2, "at2": 0.0},
        "b": {"first_k": 1 / 2, "at2": 1 / 2},
        "macro": {"first_k": 1 / 2, "at2": 1 / 4},
    }
    ndcg = summary.by_source["ndcg_at_10"]
    first = ((1 + 1 / LOG3) / 2 + ((1 + 1 / 2) / (1 + 1 / LOG3) + 1 / math.log2(9)) / 2) / 2
    assert ndcg["macro"]["first_k"].mean == pytest.approx(first)


def test_metrics_count_only_items_where_they_are_defined(summary: SetSummary) -> None:
    in_top_3 = summary.by_source["all_gold_in_top_3"]
    expected = {"first_k": 1.0, "at2": 0.0}
    assert means(in_top_3) == {"b": expected, "macro": expected}
    assert (in_top_3["b"]["at2"].n, in_top_3["b"]["at2"].low) == (1, None)


def test_differences_are_ours_minus_theirs(summary: SetSummary) -> None:
    differences = summary.differences["gold_first"]
    assert means(differences) == {
        "a": {"first_k": -1 / 2},
        "b": {"first_k": 0.0},
        "macro": {"first_k": -1 / 4},
    }
    assert (differences["a"]["first_k"].low, differences["a"]["first_k"].high) == (-1.0, 0.0)
    alone = summary_of(first_k=IN_ORDER)
    assert alone.differences == {}
    assert not any("minus" in table.title for table in summary_tables(alone))


def test_figures_by_number_of_chunks_pool_the_sources(summary: SetSummary) -> None:
    assert means(summary.by_chunks["gold_first"]) == {
        "4-6": {"first_k": 2 / 3, "at2": 0.0},
        "7-10": {"first_k": 0.0, "at2": 1.0},
    }
    assert summary.items_by_chunks == {"4-6": {"a": 2, "b": 1}, "7-10": {"b": 1}}
    ranges = [size_range(chunks) for chunks in (4, 6, 7, 11, 50, 51)]
    assert ranges == ["4-6", "4-6", "7-10", "11-20", "21-50", ">50"]


def test_tables_show_the_figures(summary: SetSummary) -> None:
    text = "\n".join(map(to_markdown, summary_tables(summary)))
    assert "| macro | 4/4 | .500 [.000, 1.000] | .250 [.000, .500] |" in text
    assert "| a | 2/2 | -.500 [-1.000, +.000] |" in text
    assert "| a | 2 | 3 no gold chunk |" in text
    assert "| at2 | 20 | 8 | 1500.0 |" in text


def test_only_a_leading_zero_is_left_out_of_numbers() -> None:
    values = [Estimate(mean, None, None, 1, 1) for mean in (0.25, -0.25, 10.25, -20.5, 1.0)]
    plain = [estimate_cell(value).text for value in values]
    assert plain == [".250", "-.250", "10.250", "-20.500", "1.000"]
    signed = [difference_cell(value).text for value in values]
    assert signed == ["+.250", "-.250", "+10.250", "-20.500", "+1.000"]
