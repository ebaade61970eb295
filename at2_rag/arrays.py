"""Arrays of scores: their type, and the one check that they are usable."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from at2_rag.errors import ScoringError

Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]


def check_finite(scores: Floats) -> None:
    """Raise `ScoringError` if a score is NaN or infinite."""
    unusable = np.flatnonzero(~np.isfinite(scores))
    if unusable.size:
        first = int(unusable[0])
        raise ScoringError(
            f"{unusable.size} of {scores.size} scores are not finite numbers, the first is "
            f"{scores.flat[first]} at index {first}; the scoring model's numbers overflowed, "
            "try dtype='float32'"
        )
