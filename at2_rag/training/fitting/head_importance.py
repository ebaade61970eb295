"""How much each head moves the scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from at2_rag.training.fitting.losses import Floats


def head_importance(features: Floats, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the absolute weight times the feature's standard deviation, [P, L, H].

    It is the standard deviation that a head alone gives the score, in the score's unit; heads
    that say the same share it among them.

    Args:
        features: [N, F] of the training sources, F = P * L * H.
        weight: [P, L, H], for features as they come.
    """
    spread = features.std(axis=0, dtype=np.float64).reshape(weight.shape)
    importance: npt.NDArray[np.float64] = np.abs(weight.astype(np.float64)) * spread
    return importance
