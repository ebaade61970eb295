"""What head weights are fitted to.

- "evidence": listwise over gold labels.
- "contributions": listwise, in proportion to what each chunk adds to the likelihood of the question
  (for weights that attribute answers: of the answer).
- "drops": listwise, in proportion to what each chunk's absence costs the answer.
- "teacher": listwise, the softmax of a teacher's scores, see `soft_labels`.
- "mixed": listwise, evidence and contributions, or evidence and the teacher. What a sample has only
  one of is all it is fitted to.
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

Objective: TypeAlias = Literal["evidence", "contributions", "drops", "mixed", "pearson", "teacher"]
Signal: TypeAlias = Literal["evidence", "ablation", "both", "teacher"]

OBJECTIVES: Mapping[Signal, tuple[Objective, ...]] = {
    "evidence": ("evidence",),
    "ablation": ("contributions", "drops", "pearson"),
    "both": ("mixed", "evidence", "contributions"),
    "teacher": ("mixed", "evidence", "teacher"),
}
"""The objectives of each signal, tried in this order; "teacher" alone where nothing is gold."""

ABLATED: tuple[Signal, ...] = ("ablation", "both")
LABELLED: tuple[Objective, ...] = ("evidence", "mixed")

MIXED_SHARE = 0.3  # the contributions' or the teacher's part of the mixed objective


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
    _check_known(objective, samples)
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
    rows = _rows(objective, samples)
    counts = sum_by_sample(rows.astype(np.int64), samples.counts)
    chosen, counts = chosen[counts > 0], counts[counts > 0]
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


def _check_known(objective: Objective, samples: Samples) -> None:
    ablated, taught = samples.effects is not None, samples.teacher is not None
    if objective in LABELLED and samples.labels is None:
        raise InputError(f"the objective {objective!r} needs gold labels; pass labelled examples")
    if objective == "teacher" and not taught:
        raise InputError("the objective 'teacher' needs a teacher's scores; pass scored examples")
    if objective == "mixed" and not (ablated or taught):
        raise InputError(
            "the objective 'mixed' needs ablations or a teacher's scores; pass ablated samples"
        )
    if objective in ("contributions", "drops", "pearson") and not ablated:
        raise InputError(f"the objective {objective!r} needs ablations; pass ablated samples")


def _rows(objective: Objective, samples: Samples) -> Bools:
    """Return of which chunks it is known how relevant they are, [N]."""
    if objective == "teacher":
        return samples.scored
    if objective not in LABELLED:
        return np.ones(int(samples.counts.sum()), dtype=bool)
    if objective == "evidence" or samples.effects is not None:
        return samples.certain
    has_gold = sum_by_sample(np.asarray(samples.labels).astype(np.int64), samples.counts) > 0
    return np.where(np.repeat(has_gold, samples.counts), samples.certain, samples.scored)


def _relevance(
    objective: Objective, samples: Samples, rows: Bools, counts: npt.NDArray[np.int64]
) -> Floats:
    """Return how relevant each of the chunks in `rows` is, at least 0, on any scale by sample."""
    gold = np.zeros(0)
    if objective in LABELLED:  # a sample whose chunks are all gold says nothing
        gold = np.asarray(samples.labels, dtype=np.float64)[rows]
        gold = gold * np.repeat(sum_by_sample(gold, counts) < counts, counts)
        if objective == "evidence":
            return gold
    effects, teacher = samples.effects, samples.teacher
    if objective == "teacher" or effects is None:
        assert teacher is not None  # checked by the caller
        soft = np.nan_to_num(teacher[rows])
    elif objective == "drops":
        return np.maximum(effects.drops[rows], 0)
    else:
        soft = np.maximum(effects.contributions[rows], 0)
    if objective != "mixed":
        return soft
    return (1 - MIXED_SHARE) * _shares(gold, counts) + MIXED_SHARE * _shares(soft, counts)


def _shares(values: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    """Return each value's part of its sample's sum; 0 where that is 0."""
    totals = sum_by_sample(values, counts)
    shares: Floats = values / np.repeat(np.where(totals > 0, totals, 1), counts)
    return shares
