"""Features of each source: what the head weights are multiplied with.

A reading has one or more *passes* (`joint`; or `late` over the keys of chunks, `together` and
`apart` over their states). From each pass a `FeatureSpec` takes one *quantity* per layer and head,
so that a source has F = passes x L x H features, index (pass * L + layer) * H + head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from at2_rag.errors import InputError
from at2_rag.reading.attention import SpanAttention

Reading = Literal["joint", "independent"]
Pass = Literal["joint", "late", "together", "apart"]
Quantity = Literal["mass", "log_mass", "log_ratio", "log"]
"""The share of attention, its logarithm, the logarithm of its ratio to the prefix's, or "log": the
log ratio of the late pass, in which chunks don't compete, and the log mass of others."""

PASSES: Mapping[Reading, tuple[Pass, ...]] = {
    "joint": ("joint",),
    "independent": ("late", "together", "apart"),
}

_LEAST_MASS = 1e-9  # about what bfloat16 attention still tells apart


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Which features a readout uses: a quantity of `SpanAttention`, from each pass in order."""

    quantity: Quantity
    passes: tuple[Pass, ...]

    def __post_init__(self) -> None:
        if self.quantity not in get_args(Quantity):
            raise InputError(
                f"quantity is {self.quantity!r}; it is one of {', '.join(get_args(Quantity))}"
            )
        if not self.passes or not any(
            set(self.passes) <= set(possible) and len(set(self.passes)) == len(self.passes)
            for possible in PASSES.values()
        ):
            raise InputError(
                f"passes are {self.passes!r}; they are 'joint', or some of 'late', 'together' "
                "and 'apart'"
            )

    @property
    def reading(self) -> Reading:
        """The reading mode that has these passes."""
        return "joint" if "joint" in self.passes else "independent"

    def extract(self, attention: Mapping[Pass, SpanAttention]) -> Tensor:
        """Return the features [S, F], float32, of the sources of one prompt."""
        parts = []
        for name in self.passes:
            read, quantity = attention[name], quantity_of(name, self.quantity)
            if quantity == "log_ratio":
                parts.append(read.log_ratio)
            else:
                parts.append(read.mass if quantity == "mass" else log_mass(read.mass))
        return torch.cat([part.flatten(0, 1) for part in parts]).T


def quantity_of(name: Pass, quantity: Quantity) -> Quantity:
    """Return what is taken from a pass for a quantity, which is never "log"."""
    if quantity != "log":
        return quantity
    return "log_ratio" if name == "late" else "log_mass"


def log_mass(mass: Tensor) -> Tensor:
    """Return the logarithm of attention mass, with a floor under what is as good as nothing."""
    return mass.clamp(min=_LEAST_MASS).log()
