"""Which masks a system is judged on, and which it may be fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.training.answering.ablation import draw_masks
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.seeding import generator

Bools = npt.NDArray[np.bool_]

KEEP_RATES = (0.2, 0.5)
"""Keep rates of held masks: what pruning leaves, and half of the chunks as in the papers."""

FIT_KEEP = 0.5
"""Keep rate of the masks that a regression is fitted on, as in ContextCite."""

FIT_MASKS = 32

_ENUMERATED = 12
"""Most sources of an item whose masks are all listed, so that both kinds get a half of them."""


@dataclass(frozen=True, slots=True)
class MaskSplit:
    """An item's masks; none is both held and fitted on.

    Attributes:
        held: Keep rate -> masks that systems are judged on, [M, S] bool.
        fitted: Masks that a system may look at, [M, S] bool.
    """

    held: Mapping[float, Bools]
    fitted: Bools


@dataclass(frozen=True, slots=True)
class MaskPlan:
    """How masks are drawn; an item's depend on the plan, the item's content and sources alone.

    Attributes:
        held: Held masks of each keep rate. Of few sources there are fewer: 7 with four, 15
            with five, 31 with six, and then both rates have the same.
        seed: Seed.
    """

    held: int = 32
    seed: int = 0

    def split(self, item: SourcedItem) -> MaskSplit:
        """Draw an item's masks."""
        rng = generator(self.seed, "fidelity masks", item.key)
        return _split(len(item.sources), self.held, rng)


def _split(size: int, count: int, rng: np.random.Generator) -> MaskSplit:
    if size <= _ENUMERATED:
        every = draw_masks(size, 2**size, rng)
        order = rng.permutation(len(every))
        to_hold, to_fit = every[order[: len(every) // 2]], every[order[len(every) // 2 :]]
        held = {rate: _drawn_from(to_hold, count, rate, rng) for rate in KEEP_RATES}
        return MaskSplit(held, _drawn_from(to_fit, FIT_MASKS, FIT_KEEP, rng))
    held = {rate: draw_masks(size, count, rng, keep=rate) for rate in KEEP_RATES}
    taken = {mask.tobytes() for masks in held.values() for mask in masks}
    spare = draw_masks(size, FIT_MASKS + len(taken), rng, keep=FIT_KEEP)
    free = [mask for mask in spare if mask.tobytes() not in taken]
    return MaskSplit(held, np.stack(free[:FIT_MASKS]))


def _drawn_from(masks: Bools, count: int, keep: float, rng: np.random.Generator) -> Bools:
    """Draw different masks, each as likely as if every source were kept with probability `keep`."""
    kept = masks.sum(1)
    likely = keep**kept * (1 - keep) ** (masks.shape[1] - kept)
    rows = rng.choice(len(masks), min(count, len(masks)), replace=False, p=likely / likely.sum())
    return masks[rows]
