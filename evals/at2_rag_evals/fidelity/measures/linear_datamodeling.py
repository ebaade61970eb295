"""Linear datamodeling score: do sums of scores predict what ablations do?

S. M. Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023, definition 2.2, after
A. Ilyas et al., "Datamodels: Predicting Predictions from Training Data", ICML 2022; for context
B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS 2024, section
3. The predicted effect of a mask is the sum of the scores of the chunks it keeps, the true effect
is the answer's logit-probability when the model reads those chunks only, and the score of an item
is their correlation over random masks: Spearman's rank correlation in those papers, Pearson's for
the size of effects too.

The sum depends on where scores have their zero: a constant added to every score adds a multiple
of the number of chunks kept. *Centred* scores have the item's mean score taken off first, which
leaves the differences between chunks alone. *Shares* are the softmax of scores on a logit's scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from at2_rag_evals.extras import import_extra

Floats = npt.NDArray[np.float64]
Kind = Literal["pearson", "spearman"]
Truth = tuple[npt.NDArray[np.bool_], Floats]
"""Masks [M, S] and the true effect of each, [M]."""

_CONSTANT = 1e-12  # relative; sums of equal scores may differ in their last bits


def predicted_effects(scores: npt.ArrayLike, masks: npt.NDArray[np.bool_]) -> Floats:
    """Return the sum of the kept chunks' scores under each mask, [M].

    Args:
        scores: One a chunk, [S].
        masks: [M, S] bool, True for chunks that were kept.
    """
    effects: Floats = masks.astype(np.float64) @ np.asarray(scores, dtype=np.float64)
    return effects


def centred(scores: npt.ArrayLike) -> Floats:
    """Return the scores [S] with their mean taken off."""
    values = np.asarray(scores, dtype=np.float64)
    if _constant(values):  # else what rounding leaves would follow the number of chunks kept
        return np.zeros_like(values)
    less: Floats = values - values.mean()
    return less


def shares(scores: npt.ArrayLike) -> Floats:
    """Return the softmax of an item's scores [S]."""
    values = np.asarray(scores, dtype=np.float64)
    parts = np.exp(values - values.max())
    softmax: Floats = parts / parts.sum()
    return softmax


def correlation(predicted: Floats, true: Floats, kind: Kind) -> float | None:
    """Return the correlation of predicted and true effects, -1 to 1.

    Args:
        predicted: [M].
        true: [M].
        kind: Pearson's, or Spearman's with mean ranks for ties.

    Returns:
        0 where all predictions are alike: such scores say nothing. None where all true effects
        are, or there are fewer than two: there is nothing to predict.
    """
    if len(true) < 2 or _constant(true):
        return None
    if _constant(predicted):
        return 0.0
    if kind == "spearman":
        rank = import_extra("scipy.stats").rankdata
        predicted, true = rank(predicted), rank(true)
    x, y = predicted - predicted.mean(), true - true.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def mean_if_defined(values: Sequence[float | None]) -> float | None:
    """Return the mean of values; None if one of them is None."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None


def _constant(values: Floats) -> bool:
    return bool(np.ptp(values) <= _CONSTANT * np.abs(values).max())
