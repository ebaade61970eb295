"""What head weights are fitted to.

- "evidence": listwise over gold labels.
- "contributions": listwise, in proportion to what each chunk adds to the likelihood of the question
  (for weights that attribute answers: of the answer).
- "drops": listwise, in proportion to what each chunk's absence costs the answer.
- "mixed": listwise, evidence and contributions.
- "pearson": the correlation of summed scores with the answer's likelihood, over all masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import InputError
from at2_rag.training.fitting.fit import LinearFit, fit_few, fit_listwise, fit_pearson
from at2_rag.training.fitting.losses import AblationData, ListwiseData
from at2_rag.training.fitting.samples import Samples, sum_by_sample

Objective: TypeAlias = Literal["evidence", "contributions", "drops", "mixed", "pearson"]
Signal: TypeAlias = Literal["evidence", "ablation", "both"]

OBJECTIVES: Mapping[Signal, tuple[Objective, ...]] = {
    "evidence": ("evidence",),
    "ablation": ("contributions", "drops", "pearson"),
    "both": ("mixed", "evidence", "contributions"),
}
"""The objectives of each signal, tried in this order."""

MIXED_SHARE = 0.3  # the contributions' part of the mixed objective


def fit_objective(
    objective: Objective,
    samples: Samples,
    matrix: npt.NDArray[np.float32],
    *,
    ridge: float,
    chosen: Bools,
    groups: tuple[npt.NDArray[np.int64], int] | None = None,
) -> LinearFit:
    """Fit a readout to the `chosen` [I] of the samples, whose features are `matrix` [N, F].

    Every sample counts the same, whatever its source.
    `groups` limits which features have weights, see `fit_few`: each one's group, and how many.
    """
    if objective != "evidence" and samples.effects is None:
        raise InputError(f"the objective {objective!r} needs ablations; pass ablated samples")
    if objective in ("evidence", "mixed") and samples.labels is None:
        raise InputError(f"the objective {objective!r} needs gold labels; pass labelled examples")
    if objective == "pearson":
        assert samples.effects is not None  # checked above
        effects = samples.effects
        data = AblationData(matrix, samples.counts, effects.masks, effects.likelihoods)
        ablated = data.take(chosen)

        def fit_columns(columns: npt.NDArray[np.int64]) -> LinearFit:
            return fit_pearson(replace(ablated, features=ablated.features[:, columns]), ridge=ridge)

        if groups is None:
            return fit_pearson(ablated, ridge=ridge)
        return fit_few(fit_columns, ablated.features, *groups)
    rows = np.ones(len(matrix), dtype=bool)
    if objective in ("evidence", "mixed"):
        rows = samples.certain
    counts = sum_by_sample(rows.astype(np.int64), samples.counts)
    relevance = _relevance(objective, samples, rows, counts)
    informative = chosen & (sum_by_sample(relevance, counts) > 0)
    if not informative.any():
        raise InputError(f"no sample says anything about {objective!r}; pass more examples")
    listwise = ListwiseData(matrix[rows], relevance, counts).take(informative)
    if groups is None:
        return fit_listwise(listwise, ridge=ridge)
    features = listwise.features
    return fit_few(
        lambda columns: fit_listwise(replace(listwise, features=features[:, columns]), ridge=ridge),
        features,
        *groups,
    )


def _relevance(
    objective: Objective, samples: Samples, rows: Bools, counts: npt.NDArray[np.int64]
) -> Floats:
    """Return how relevant each of the chunks in `rows` is, at least 0, on any scale by sample."""
    gold = np.zeros(0)
    if objective in ("evidence", "mixed"):  # a sample whose chunks are all gold says nothing
        gold = np.asarray(samples.labels, dtype=np.float64)[rows]
        gold = gold * np.repeat(sum_by_sample(gold, counts) < counts, counts)
        if objective == "evidence":
            return gold
    assert samples.effects is not None  # checked by the caller
    if objective == "drops":
        return np.maximum(samples.effects.drops[rows], 0)
    contributions = np.maximum(samples.effects.contributions[rows], 0)
    if objective == "contributions":
        return contributions
    return (1 - MIXED_SHARE) * _shares(gold, counts) + MIXED_SHARE * _shares(contributions, counts)


def _shares(values: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    """Return each value's part of its sample's sum; 0 where that is 0."""
    totals = sum_by_sample(values, counts)
    shares: Floats = values / np.repeat(np.where(totals > 0, totals, 1), counts)
    return shares
