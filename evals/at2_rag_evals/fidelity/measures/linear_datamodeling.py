"""Linear datamodeling score: do sums of scores predict what ablations do?

S. M. Park et al., "TRAK", ICML 2023, definition 2.2, after A. Ilyas et al., "Datamodels", ICML
2022; for context B. Cohen-Wang et al., "ContextCite", NeurIPS 2024, section 3. The predicted effect
of a mask is the sum of the scores of the sources it keeps, the true effect is the answer's
logit-probability when the model reads only those, and the score of an item is their correlation
over random masks: Spearman's in those papers, Pearson's for the size of effects too.

A constant added to every score adds a multiple of the number of sources kept to the sum. *Centred*
scores have the item's mean subtracted. *Shares* are the softmax of scores on a logit's scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag_evals.extras import import_extra

Kind = Literal["pearson", "spearman"]
Truth = tuple[npt.NDArray[np.bool_], Floats]
"""Masks [M, S] and the true effect of each, [M]."""

KINDS: tuple[Kind, ...] = ("pearson", "spearman")
FORMS = {"lds": "LDS", "lds_shares": "LDS of shares"}
"""Forms of scores that are reported for each keep rate, and their titles."""

_CONSTANT = 1e-12  # relative; sums of equal scores may differ in their last bits


def predicted_effects(scores: npt.ArrayLike, masks: npt.NDArray[np.bool_]) -> Floats:
    """Return the sum of the kept sources' scores, [S], under each mask, [M, S] -> [M]."""
    effects: Floats = masks.astype(np.float64) @ np.asarray(scores, dtype=np.float64)
    return effects


def centred(scores: npt.ArrayLike) -> Floats:
    """Return scores, [S], minus their mean."""
    values = np.asarray(scores, dtype=np.float64)
    if _is_constant(values):  # else what rounding leaves would follow the number of chunks kept
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
    """Return the correlation of predicted and true effects, both [M]; ties have their mean rank.

    It is 0 where all predictions are equal, for such scores say nothing, and None where all true
    effects are, or there are fewer than two: there is nothing to predict.
    """
    if len(true) < 2 or _is_constant(true):
        return None
    if _is_constant(predicted):
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


def _is_constant(values: Floats) -> bool:
    return bool(np.ptp(values) <= _CONSTANT * np.abs(values).max())


def linear_datamodeling_scores(
    scores: Sequence[float], truth: Mapping[float, Truth], *, logits: bool = False
) -> dict[str, float | None]:
    """Return all linear datamodeling scores of an item, by metric.

    A mean over keep rates is None if it is for one of them.

    Args:
        scores: One a source, [S].
        truth: Keep rate -> masks and the true effect of each.
        logits: Whether the shares are the scores' softmax, rather than the scores themselves.
    """
    raw = np.asarray(scores, dtype=np.float64)
    forms = {
        "lds": raw,
        "lds_shares": shares(raw) if logits else raw,
        "lds_centred": centred(raw),
    }
    results: dict[str, float | None] = {}
    for kind in KINDS:
        for form, values in forms.items():
            by_rate = {
                rate: correlation(predicted_effects(values, masks), true, kind)
                for rate, (masks, true) in truth.items()
            }
            results[f"{form}_{kind}"] = mean_if_defined(list(by_rate.values()))
            if form in FORMS:
                results |= {f"{form}_{kind}_{rate}": value for rate, value in by_rate.items()}
    return results
