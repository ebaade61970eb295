"""Arrays of scores and probabilities: types, whether they are usable, what is missed."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from at2_rag.errors import ScoringError

Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.intp]


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


def missed_shares(likely: Floats) -> Floats:
    """Return which share of the relevant chunks is expected to be missed if the best n are kept.

    Args:
        likely: [S], the probability that each chunk is relevant, best first.

    Returns:
        [S + 1] in [0, 1], for n from 0 to S: the sum of the probabilities from the n-th on, over
        the sum of all; 0 where all are 0.
    """
    left = np.append(np.cumsum(likely[::-1])[::-1], 0.0)
    if left[0] == 0:
        return left
    shares: Floats = np.round(left / left[0], 9)  # so that 1 - (.5 + .3) is .2
    return shares
