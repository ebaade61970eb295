"""Insertion curve: how likely the answer is with the k best chunks alone.

V. Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018,
section 3.3 (insertion); the sufficiency of J. DeYoung et al., "ERASER: A Benchmark to Evaluate
Rationalized NLP Models", ACL 2020. It is what pruning to k chunks does. The value is the mean
log-probability of the answer's tokens, in nats a token, with the kept chunks in their original
order; higher is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

INSERTED_KS = (1, 2, 3, 5)


def only_best(ranking: Sequence[int], k: int) -> npt.NDArray[np.bool_] | None:
    """Return the mask [S] that keeps the first `k` of a ranking only.

    Args:
        ranking: The chunks' places, best first.
        k: How many, at least 1.

    Returns:
        None where that is all of them: every ranking would do equally well.
    """
    if k >= len(ranking):
        return None
    mask = np.zeros(len(ranking), dtype=bool)
    mask[list(ranking[:k])] = True
    return mask
