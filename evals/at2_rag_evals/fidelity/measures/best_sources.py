"""How the answer fares without the sources that a system scores highest, and with them alone.

*Drop*: how far the mean log-probability of the answer's tokens falls without the best k, in nats a
token. B. Cohen-Wang et al., "ContextCite", NeurIPS 2024, section 4.1 (top-k log-probability drop);
the comprehensiveness of J. DeYoung et al., "ERASER", ACL 2020.

*Insertion*: the mean log-probability of the answer's tokens with the best k alone, in their
original order, which is what pruning to k does. V. Petsiuk et al., "RISE", BMVC 2018, section 3.3;
the sufficiency of DeYoung et al. For both, higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

DROPPED_KS = (1, 3)
INSERTED_KS = (1, 2, 3, 5)


def best_masks(ranking: Sequence[int]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return metric -> mask [S] that a ranking of the sources, best first, is judged by.

    There is no insertion of all sources: every ranking would do equally well.
    """
    order = np.array(ranking)
    masks = {}
    for k in DROPPED_KS:
        masks[f"drop_{k}"] = np.ones(len(order), dtype=bool)
        masks[f"drop_{k}"][order[:k]] = False
    for k in INSERTED_KS:
        if k < len(order):
            masks[f"insertion_{k}"] = np.zeros(len(order), dtype=bool)
            masks[f"insertion_{k}"][order[:k]] = True
    return masks


def best_values(full: float, with_mask: Mapping[str, float]) -> dict[str, float | None]:
    """Return the value of each metric; None where it isn't defined for the item.

    `full` is the mean log-probability of the answer's tokens with all sources, `with_mask` the same
    under each metric's mask.
    """
    drops = {f"drop_{k}": full - with_mask[f"drop_{k}"] for k in DROPPED_KS}
    return {**drops, **{f"insertion_{k}": with_mask.get(f"insertion_{k}") for k in INSERTED_KS}}
