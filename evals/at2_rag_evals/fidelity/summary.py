"""From judged items to figures: means with intervals by source, and what systems cost."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """What a system's scores cost an item, in seconds of one thread.

    Attributes:
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
        left_out: Source -> reason -> number of examples.
        by_source: Metric -> source or "macro" -> system -> estimate.
        differences: Compared system -> metric -> "macro" -> other system -> estimate of the
            compared one minus its.
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
) -> FidelitySummary:
    """Compute the figures of a run over one item or more.

    `clusters` has each item's cluster by source and id; `systems` are in the report's order.
    """
    examples = [result.item.example for result in judged.items]
    sources = [example.source for example in examples]
    strata = Strata([clusters[each.source, each.id] for each in examples], "fidelity", seed)
    samples = {
        metric: with_macro(
            strata.sample(
                as_matrix(
                    [result.metrics[system][metric] for system in systems]
                    for result in judged.items
                ),
                sources,
                metric=metric,
            )
        )
        for metric in METRIC_TITLES
    }
    compared = {
        ours: {
            metric: differences({MACRO: groups[MACRO]} if groups else {}, systems, ours=ours)
            for metric, groups in samples.items()
        }
        for ours in COMPARED
        if ours in systems
    }
    removal = statistics.mean(result.removal_seconds for result in judged.items)
    return FidelitySummary(
        items=dict(Counter(sources)),
        left_out=judged.left_out,
        by_source={metric: estimates(groups, systems) for metric, groups in samples.items()},
        differences=compared,
        seconds={system: _cost(judged, system, removal) for system in systems},
    )


def _cost(judged: JudgedSet, system: str, removal: float) -> Cost:
    scored = [result.scored[system] for result in judged.items]
    mean = statistics.mean(each.seconds for each in scored)
    return Cost(
        mean=mean,
        median=statistics.median(each.seconds for each in scored),
        removals=mean / removal if removal else 0.0,
        truncated=sum(each.truncated for each in scored),
    )
