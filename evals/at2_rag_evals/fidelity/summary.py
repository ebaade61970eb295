"""From judged items to figures: means with intervals by source, and what systems cost."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.fidelity.judging import METRIC_TITLES, JudgedSet
from at2_rag_evals.summary import (
    MACRO,
    OURS,
    Figures,
    Strata,
    as_matrix,
    differences,
    estimates,
    with_macro,
)

COMPARED = (OURS, "at2_answer")
"""The systems that every other one is compared with."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a system's scores cost, in seconds of one thread.

    Attributes:
        mean: Mean over the items.
        median: Median.
        removals: The mean, as a number of average readings by removal.
        truncated: Texts (chunks or sentences) that the system read only in part.
    """

    mean: float
    median: float
    removals: float
    truncated: int


@dataclass(frozen=True, slots=True)
class FidelitySummary:
    """All figures of a run.

    Attributes:
        items: Source -> number of items.
        left_out: Source -> reason -> number of examples left out.
        by_source: Metric -> source or "macro" -> system -> estimate.
        differences: Compared system -> metric -> "macro" -> other system -> estimate of the
            compared one minus its.
        seconds: System -> what it costs.
    """

    items: Mapping[str, int]
    left_out: Mapping[str, Mapping[str, int]]
    by_source: Figures
    differences: Mapping[str, Figures]
    seconds: Mapping[str, Cost]


def summarise_fidelity(
    judged: JudgedSet,
    clusters: Mapping[tuple[str, str], int],
    systems: Sequence[str],
    *,
    seed: int,
    resamples: int,
) -> FidelitySummary:
    """Work out the figures of a run.

    Args:
        judged: The items; at least one.
        clusters: (source, id) of an item -> its cluster.
        systems: The systems, in the report's order.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap draws.
    """
    sources = [item.item.source for item in judged.items]
    strata = Strata(
        clusters=[clusters[item.item.source, item.item.id] for item in judged.items],
        name="fidelity",
        seed=seed,
        resamples=resamples,
    )
    by_source = {}
    compared: dict[str, dict[str, Mapping[str, Mapping[str, Estimate]]]]
    compared = {system: {} for system in COMPARED if system in systems}
    for metric in METRIC_TITLES:
        values = as_matrix(
            [item.metrics[system][metric] for system in systems] for item in judged.items
        )
        samples = with_macro(strata.sample(values, sources, metric=metric))
        by_source[metric] = estimates(samples, systems)
        macro = {name: sample for name, sample in samples.items() if name == MACRO}
        for system, figures in compared.items():
            figures[metric] = differences(macro, systems, ours=system)
    removal = statistics.mean(item.removal_seconds for item in judged.items)
    return FidelitySummary(
        items=dict(Counter(sources)),
        left_out=judged.left_out,
        by_source=by_source,
        differences=compared,
        seconds={system: _cost(judged, system, removal) for system in systems},
    )


def _cost(judged: JudgedSet, system: str, removal: float) -> Cost:
    seconds = [item.seconds[system] for item in judged.items]
    mean = statistics.mean(seconds)
    return Cost(
        mean=mean,
        median=statistics.median(seconds),
        removals=mean / removal if removal else 0.0,
        truncated=sum(item.truncated[system] for item in judged.items),
    )
