"""Which masks a system is judged on, and which it may be fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from at2_rag.arrays import Bools
from at2_rag.training.answering.ablation import draw_masks
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.seeding import generator

KEEP_RATES = (0.2, 0.5)
"""Keep rates of held masks: what pruning leaves, and half of the chunks as in the papers."""

FIT_KEEP = 0.5
"""Keep rate of the masks that a regression is fitted on, as in ContextCite."""

FIT_MASKS = 32

_ENUMERATED = 12
"""Most sources of an item whose masks are all listed, so that both kinds get a half of them."""


@dataclass(frozen=True, slots=True)
class MaskSplit:
    """An item's masks, [M, S]; none is in both groups.

    Attributes:
        held: Keep rate -> masks that systems are judged on.
        fitted: Masks that a system may be fitted on.
    """

    held: Mapping[float, Bools]
    fitted: Bools


@dataclass(frozen=True, slots=True)
class MaskPlan:
    """How masks are drawn; an item's depend on the plan, the item's content and sources alone.

    `held` is the number of held masks of each keep rate; of four, five and six sources there are 7,
    15 and 31 at most, the same for both rates.
    """

    held: int = 32
    seed: int = 0

    def split(self, item: SourcedItem) -> MaskSplit:
        """Draw an item's masks."""
        rng = generator(self.seed, "fidelity masks", item.key)
        size = len(item.sources)
        if size <= _ENUMERATED:
            every = draw_masks(size, 2**size, rng)
            order = rng.permutation(len(every))
            to_hold, to_fit = every[order[: len(every) // 2]], every[order[len(every) // 2 :]]
            held = {rate: _drawn_from(to_hold, self.held, rate, rng) for rate in KEEP_RATES}
            return MaskSplit(held, _drawn_from(to_fit, FIT_MASKS, FIT_KEEP, rng))
        held = {rate: draw_masks(size, self.held, rng, keep=rate) for rate in KEEP_RATES}
        in_use = {mask.tobytes() for masks in held.values() for mask in masks}
        spare = draw_masks(size, FIT_MASKS + len(in_use), rng, keep=FIT_KEEP)
        free = [mask for mask in spare if mask.tobytes() not in in_use]
        return MaskSplit(held, np.stack(free[:FIT_MASKS]))


def _drawn_from(masks: Bools, count: int, keep: float, rng: np.random.Generator) -> Bools:
    """Draw different masks, each as likely as if every source were kept with probability `keep`."""
    kept = masks.sum(1)
    likely = keep**kept * (1 - keep) ** (masks.shape[1] - kept)
    rows = rng.choice(len(masks), min(count, len(masks)), replace=False, p=likely / likely.sum())
    return masks[rows]
