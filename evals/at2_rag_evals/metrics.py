"""Metrics of one item's ranking; labels are binary, and each metric is between 0 and 1.

A ranking lists the chunks' indices, best first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from at2_rag_evals.extras import import_extra

Metric = Callable[[Sequence[int], Sequence[bool]], float | None]
"""Rates a ranking against the chunks' labels; None where the metric isn't defined for the item."""


def rank_by_score(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the chunks' indices from the highest score to the lowest, ties in input order.

    Raises:
        ValueError: If a score is NaN.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(f"the score of chunk {int(np.isnan(values).argmax())} is NaN")
    return tuple(int(index) for index in np.argsort(-values, kind="stable"))


def gold_ranks(ranking: Sequence[int], labels: Sequence[bool]) -> tuple[int, ...]:
    """Return the ranks of the gold chunks, from 1."""
    return tuple(rank for rank, index in enumerate(ranking, start=1) if labels[index])


def ndcg_at_10(ranking: Sequence[int], labels: Sequence[bool]) -> float:
    """Normalised discounted cumulative gain of the first ten, by `ir_measures`.

    DCG is the sum over the gold chunks among the first ten of 1 / log2(1 + rank); nDCG divides it
    by the DCG of a ranking with all gold first. K. Järvelin and J. Kekäläinen, "Cumulated
    gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.
    """
    ir_measures = import_extra("ir_measures")
    judged = [
        ir_measures.Qrel("item", str(index), int(label)) for index, label in enumerate(labels)
    ]
    # The measure breaks ties by id; falling whole numbers leave it none to break.
    run = [
        ir_measures.ScoredDoc("item", str(index), float(-rank))
        for rank, index in enumerate(ranking)
    ]
    return float((ir_measures.nDCG @ 10).calc_aggregate(judged, run))


def gold_first(ranking: Sequence[int], labels: Sequence[bool]) -> float:
    """Whether the best-ranked chunk is gold: precision at 1, also called success at 1.

    C. D. Manning, P. Raghavan and H. Schütze, "Introduction to Information Retrieval", 2008,
    section 8.4.
    """
    return float(labels[ranking[0]])


def all_gold_in_top_3(ranking: Sequence[int], labels: Sequence[bool]) -> float | None:
    """Whether the first three hold every gold chunk: recall at 3 equals 1.

    Defined for items with two or three gold chunks only: with one it says little that `gold_first`
    doesn't, and no top three can hold four.
    """
    count = sum(labels)
    if not 2 <= count <= 3:
        return None
    return float(sum(labels[index] for index in ranking[:3]) == count)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "ndcg_at_10": ndcg_at_10,
        "gold_first": gold_first,
        "all_gold_in_top_3": all_gold_in_top_3,
    }
)
METRIC_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "ndcg_at_10": "nDCG@10",
        "gold_first": "Gold first",
        "all_gold_in_top_3": "All gold in top 3 (items with 2-3 gold chunks)",
    }
)
