"""From ratings to figures: means with intervals by source, by system and by number of chunks."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from at2_rag_evals.bootstrap import Estimate, Sample, macro_sample, resample_means
from at2_rag_evals.metrics import METRICS
from at2_rag_evals.ranking.rating import RatedSet
from at2_rag_evals.seeding import generator

MACRO = "macro"
OURS = "at2"
SIZES = MappingProxyType({"4-6": 6, "7-10": 10, "11-20": 20, "21-50": 50, ">50": sys.maxsize})

Figures = Mapping[str, Mapping[str, Mapping[str, Estimate]]]


@dataclass(frozen=True, slots=True)
class SystemTotals:
    """What a system did over a whole set.

    Attributes:
        chunks: Chunks scored.
        truncated: How many of them the system read only in part.
        median_seconds: Median time an item took.
    """

    chunks: int
    truncated: int
    median_seconds: float


@dataclass(frozen=True, slots=True)
class SetSummary:
    """All figures of one set of items.

    Attributes:
        name: The set.
        counts: Source -> number of items.
        left_out: Source -> reason -> number of examples left out.
        by_source: Metric -> source or "macro" -> system -> estimate.
        differences: Metric -> source or "macro" -> other system -> estimate of ours minus its.
        by_size: Metric -> range of chunks an item -> system -> estimate, sources pooled.
        size_counts: Range of chunks an item -> source -> number of items.
        totals: System -> what it did over the set.
    """

    name: str
    counts: Mapping[str, int]
    left_out: Mapping[str, Mapping[str, int]]
    by_source: Figures
    differences: Figures
    by_size: Figures
    size_counts: Mapping[str, Mapping[str, int]]
    totals: Mapping[str, SystemTotals]


def summarise(
    rated: RatedSet, clusters: Mapping[tuple[str, str], int], *, seed: int, resamples: int
) -> SetSummary:
    """Work out the figures of a set.

    Args:
        rated: The set's items and ratings.
        clusters: (source, id) of an item -> its cluster.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap draws.
    """
    items = rated.item_set.items
    systems = list(rated.ratings)
    sources = [item.source for item in items]
    sizes = [size_range(len(item.chunks)) for item in items]
    strata = Strata(
        clusters=[clusters[item.source, item.id] for item in items],
        name=rated.item_set.name,
        seed=seed,
        resamples=resamples,
    )
    by_source, compared, by_size = {}, {}, {}
    for metric in METRICS:
        values = _values(rated, metric)
        samples = with_macro(strata.sample(values, sources, metric=metric))
        by_source[metric] = estimates(samples, systems)
        if OURS in systems:
            compared[metric] = differences(samples, systems)
        by_size[metric] = estimates(strata.sample(values, sizes, metric=metric), systems)
    return SetSummary(
        name=rated.item_set.name,
        counts=Counter(sources),
        left_out=rated.item_set.left_out,
        by_source=by_source,
        differences=compared,
        by_size=by_size,
        size_counts=_count_sizes(sizes, sources),
        totals={system: _totals(rated, system) for system in systems},
    )


def size_range(chunks: int) -> str:
    """Return the name of the range that a number of chunks falls into."""
    return next(name for name, most in SIZES.items() if chunks <= most)


@dataclass(frozen=True, slots=True)
class Strata:
    """Bootstraps groups of a set's items, each from a stream of its own.

    Attributes:
        clusters: Each item's cluster, [N].
        name: The set's name, part of the stream's.
        seed: Seed of the bootstrap.
        resamples: Number of draws.
    """

    clusters: Sequence[int]
    name: str
    seed: int
    resamples: int

    def sample(
        self, values: npt.NDArray[np.float64], groups: Sequence[str], *, metric: str
    ) -> dict[str, Sample]:
        """Return each group's sample of the items where the metric is defined for all systems.

        Args:
            values: One row an item, one column a system, [N, K]; NaN where not defined.
            groups: Each item's group, [N].
            metric: The metric, part of the stream's name.
        """
        samples = {}
        for group in dict.fromkeys(groups):
            rows = [
                row
                for row, own in enumerate(groups)
                if own == group and not np.isnan(values[row]).any()
            ]
            if rows:
                samples[group] = resample_means(
                    values[rows],
                    [self.clusters[row] for row in rows],
                    rng=generator(self.seed, "bootstrap", self.name, metric, group),
                    resamples=self.resamples,
                )
        return samples


def _values(rated: RatedSet, metric: str) -> npt.NDArray[np.float64]:
    """Return a metric's values, [N, K]; NaN where it isn't defined."""
    columns = [
        [np.nan if rating.metrics[metric] is None else rating.metrics[metric] for rating in own]
        for own in rated.ratings.values()
    ]
    return np.array(columns, dtype=np.float64).T


def with_macro(samples: Mapping[str, Sample]) -> dict[str, Sample]:
    """Return the samples of sources, and as "macro" the mean over them if there are any."""
    return {**samples, MACRO: macro_sample(list(samples.values()))} if samples else {}


def estimates(
    samples: Mapping[str, Sample], systems: Sequence[str]
) -> dict[str, dict[str, Estimate]]:
    """Return group -> system -> estimate; the samples' columns are the systems."""
    return {
        group: {system: sample.estimate(column) for column, system in enumerate(systems)}
        for group, sample in samples.items()
    }


def differences(
    samples: Mapping[str, Sample], systems: Sequence[str], *, ours: str = OURS
) -> dict[str, dict[str, Estimate]]:
    """Return group -> other system -> estimate of ours minus its."""
    place = systems.index(ours)
    return {
        group: {
            system: sample.estimate(place, minus=column)
            for column, system in enumerate(systems)
            if column != place
        }
        for group, sample in samples.items()
    }


def _count_sizes(sizes: Sequence[str], sources: Sequence[str]) -> dict[str, dict[str, int]]:
    return {
        name: Counter(source for size, source in zip(sizes, sources, strict=True) if size == name)
        for name in SIZES
        if name in sizes
    }


def _totals(rated: RatedSet, system: str) -> SystemTotals:
    ratings = rated.ratings[system]
    return SystemTotals(
        chunks=sum(len(item.chunks) for item in rated.item_set.items),
        truncated=sum(rating.truncated for rating in ratings),
        median_seconds=statistics.median(rating.seconds for rating in ratings),
    )
