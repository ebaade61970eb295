"""From ratings to figures: means with intervals by source, by system and by number of chunks."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from at2_rag_evals.metrics import METRICS
from at2_rag_evals.ranking.rating import RatedSet
from at2_rag_evals.summary import (
    OURS,
    Figures,
    Strata,
    as_matrix,
    differences,
    estimates,
    with_macro,
)

SIZES = MappingProxyType({"4-6": 6, "7-10": 10, "11-20": 20, "21-50": 50, ">50": sys.maxsize})
"""Ranges of an item's number of chunks, and the most of each."""


@dataclass(frozen=True, slots=True)
class SystemTotals:
    """What a system did over a whole set: chunks scored, read only in part, time an item."""

    chunks: int
    truncated_chunks: int
    median_seconds: float


@dataclass(frozen=True, slots=True)
class SetSummary:
    """All figures of one set of items.

    Attributes:
        left_out: Source -> reason -> number of examples.
        by_source: Metric -> source or "macro" -> system -> estimate.
        differences: Metric -> source or "macro" -> other system -> estimate of ours minus its.
        by_chunks: Metric -> range of chunks an item -> system -> estimate, sources pooled.
        items_by_chunks: Range of chunks an item -> source -> number of items.
    """

    name: str
    items: Mapping[str, int]
    left_out: Mapping[str, Mapping[str, int]]
    by_source: Figures
    differences: Figures
    by_chunks: Figures
    items_by_chunks: Mapping[str, Mapping[str, int]]
    systems: Mapping[str, SystemTotals]


def summarise(rated: RatedSet, clusters: Mapping[tuple[str, str], int], *, seed: int) -> SetSummary:
    """Compute the figures of a set; `clusters` has each item's cluster by source and id."""
    items = rated.item_set.items
    systems = list(rated.ratings)
    sources = [item.source for item in items]
    sizes = [size_range(len(item.chunks)) for item in items]
    strata = Strata([clusters[item.source, item.id] for item in items], rated.item_set.name, seed)
    by_source, compared, by_chunks = {}, {}, {}
    for metric in METRICS:
        values = as_matrix(
            [rating.metrics[metric] for rating in ratings] for ratings in rated.ratings.values()
        ).T
        samples = with_macro(strata.sample(values, sources, metric=metric))
        by_source[metric] = estimates(samples, systems)
        if OURS in systems:
            compared[metric] = differences(samples, systems)
        by_chunks[metric] = estimates(strata.sample(values, sizes, metric=metric), systems)
    sources_by_size = {
        name: Counter(source for size, source in zip(sizes, sources, strict=True) if size == name)
        for name in SIZES
    }
    return SetSummary(
        name=rated.item_set.name,
        items=dict(Counter(sources)),
        left_out=rated.item_set.left_out,
        by_source=by_source,
        differences=compared,
        by_chunks=by_chunks,
        items_by_chunks={name: dict(counts) for name, counts in sources_by_size.items() if counts},
        systems={
            system: SystemTotals(
                chunks=sum(len(item.chunks) for item in items),
                truncated_chunks=sum(rating.truncated for rating in ratings),
                median_seconds=statistics.median(rating.seconds for rating in ratings),
            )
            for system, ratings in rated.ratings.items()
        },
    )


def size_range(chunks: int) -> str:
    """Return the name of the range that a number of chunks falls into."""
    return next(name for name, most in SIZES.items() if chunks <= most)
