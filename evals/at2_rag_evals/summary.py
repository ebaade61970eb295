"""Means with intervals, by source and by system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.data.bootstrap import RESAMPLES, Estimate, MeanDraws, macro_sample, resample_means
from at2_rag_evals.seeding import generator

MACRO = "macro"
OURS = "at2"

Figures = Mapping[str, Mapping[str, Mapping[str, Estimate]]]


@dataclass(frozen=True, slots=True)
class Strata:
    """Bootstraps groups of a set's items, with `clusters`, [N].

    Each group has a generator that depends on the set's name, the metric, the group and the seed.
    """

    clusters: Sequence[int]
    name: str
    seed: int
    resamples: int = RESAMPLES

    def sample(
        self, values: npt.NDArray[np.float64], groups: Sequence[str], *, metric: str
    ) -> dict[str, MeanDraws]:
        """Return each group's sample, over the items where the metric is defined for all systems.

        `values` has a row for each item and a column for each system, [N, K]; NaN where not
        defined.
        """
        samples = {}
        for group in dict.fromkeys(groups):
            rows = [
                row
                for row, name in enumerate(groups)
                if name == group and not np.isnan(values[row]).any()
            ]
            if rows:
                samples[group] = resample_means(
                    values[rows],
                    [self.clusters[row] for row in rows],
                    rng=generator(self.seed, "bootstrap", self.name, metric, group),
                    resamples=self.resamples,
                )
        return samples


def as_matrix(rows: Iterable[Iterable[float | None]]) -> npt.NDArray[np.float64]:
    """Return values as an array, NaN for None."""
    filled = [[np.nan if value is None else value for value in row] for row in rows]
    return np.array(filled, dtype=np.float64)


def with_macro(samples: Mapping[str, MeanDraws]) -> dict[str, MeanDraws]:
    """Return samples of sources and, if there are any, the mean over them as "macro"."""
    return {**samples, MACRO: macro_sample(list(samples.values()))} if samples else {}


def estimates(
    samples: Mapping[str, MeanDraws], systems: Sequence[str]
) -> dict[str, dict[str, Estimate]]:
    """Return group -> system -> estimate; the samples have a column for each system."""
    return {
        group: {system: sample.estimate(column) for column, system in enumerate(systems)}
        for group, sample in samples.items()
    }


def differences(
    samples: Mapping[str, MeanDraws], systems: Sequence[str], *, ours: str = OURS
) -> dict[str, dict[str, Estimate]]:
    """Return group -> other system -> estimate of ours minus its."""
    our_column = systems.index(ours)
    return {
        group: {
            system: sample.estimate(our_column, minus=column)
            for column, system in enumerate(systems)
            if column != our_column
        }
        for group, sample in samples.items()
    }
