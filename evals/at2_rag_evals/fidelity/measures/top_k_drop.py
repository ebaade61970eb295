"""Top-k drop: what is lost without the chunks that a system scores highest.

B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS 2024, section
4.1, there called top-k log-probability drop; the comprehensiveness of J. DeYoung et al., "ERASER: A
Benchmark to Evaluate Rationalized NLP Models", ACL 2020. In nats a token of the answer; higher is
better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TOP_KS = (1, 3)


def without_best(ranking: Sequence[int], k: int) -> npt.NDArray[np.bool_]:
    """Return the mask [S] that leaves out the first `k` of a ranking.

    Args:
        ranking: The chunks' places, best first.
        k: How many, at least 1; all are left out where there are fewer.
    """
    mask = np.ones(len(ranking), dtype=bool)
    mask[list(ranking[:k])] = False
    return mask


def top_k_drop(full: float, without: float) -> float:
    """Return how far the answer falls.

    Args:
        full: Mean log-probability of the answer's tokens with all chunks.
        without: The same without the k best.
    """
    return full - without
