"""Shares at the temperature that suits a system best: an upper bound, the same for every system.

Scores that rank well, such as cosines, may still be too flat to add up. So that no system loses for
the form of its scores, their softmax (of masses, that of their logarithm) is taken at several
temperatures, and the best over *the very items judged* counts. Additive scores stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from at2_rag_evals.fidelity.measures.linear_datamodeling import (
    Truth,
    correlation,
    mean_if_defined,
    predicted_effects,
    shares,
)

Scale = Literal["logit", "mass", "additive"]
"""What scores are: numbers whose differences count, masses (never negative) whose ratios do, or
effects that add up."""

MULTIPLES = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Temperatures tried, in units of the scores' spread within an item."""

_LEAST_MASS = 1e-12


def tempered_lds(
    scores: Sequence[Sequence[float]],
    truths: Sequence[Mapping[float, Truth]],
    sources: Sequence[str],
    scale: Scale,
) -> list[float | None]:
    """Return each item's linear datamodeling score, Pearson's, mean over keep rates.

    Args:
        scores: For each item one score a source, [S].
        truths: For each item keep rate -> masks and true effects.
        sources: Each item's data set; the temperature is chosen by the mean of their means.
        scale: What the scores are.
    """
    values = [np.asarray(of_item, dtype=np.float64) for of_item in scores]
    if scale == "additive" or not values:
        return _of_items(values, truths)
    if scale == "mass":
        values = [np.log(np.maximum(masses, _LEAST_MASS)) for masses in values]
    spread = float(np.sqrt(np.mean([logits.var() for logits in values]))) or 1.0
    tried = [
        _of_items([shares(logits / (multiple * spread)) for logits in values], truths)
        for multiple in MULTIPLES
    ]
    return max(tried, key=lambda results: _macro(results, sources))


def _of_items(
    scores: Sequence[npt.NDArray[np.float64]], truths: Sequence[Mapping[float, Truth]]
) -> list[float | None]:
    return [
        mean_if_defined(
            [
                correlation(predicted_effects(of_item, masks), true, "pearson")
                for masks, true in truth.values()
            ]
        )
        for of_item, truth in zip(scores, truths, strict=True)
    ]


def _macro(values: Sequence[float | None], sources: Sequence[str]) -> float:
    by_source: dict[str, list[float]] = {}
    for value, source in zip(values, sources, strict=True):
        if value is not None:
            by_source.setdefault(source, []).append(value)
    means = [np.mean(of_source) for of_source in by_source.values()]
    return float(np.mean(means)) if means else 0.0
