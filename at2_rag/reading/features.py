"""Features of each source: what the head weights are multiplied with.

A reading has one or more *passes* (`joint`; or `late` over the keys of chunks, `together` and
`apart` over their states). Each returns the attention that the target tokens pay to each source,
per layer and head, [L, H, S] float32:

- the *mass*, in [0, 1]: attention summed over a source's tokens, averaged over the target tokens;
- late, where chunks don't compete, the *log ratio*, in [-50, 50]: log-sum-exp of the attention
  logits over a source's tokens less that over the prefix's, averaged over the target tokens.

A `FeatureSpec` takes one *quantity* from each pass, so that a source has F = passes x L x H
features, index (pass * L + layer) * H + head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from at2_rag.errors import InputError

Reading = Literal["joint", "independent"]
Pass = Literal["joint", "late", "together", "apart"]
Quantity = Literal["log", "mass"]
"""The log ratio of the late pass and the logarithm of the mass of others; or the mass, which of the
late pass is the logistic function of the log ratio."""

PASSES: Mapping[Reading, tuple[Pass, ...]] = {
    "joint": ("joint",),
    "independent": ("late", "together", "apart"),
}

_LEAST_MASS = 1e-9  # about what bfloat16 attention still tells apart


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Which features a readout uses: a quantity of the attention of each pass, in order."""

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

    def extract(self, attention: Mapping[Pass, Tensor]) -> Tensor:
        """Return the features [S, F], float32, of the sources of one prompt."""
        read = {name: attention[name] for name in self.passes}
        if self.quantity == "log":
            read = {name: as_log(name, one) for name, one in read.items()}
        elif "late" in read:
            read["late"] = read["late"].sigmoid()
        return torch.cat([one.flatten(0, 1) for one in read.values()]).T


def as_log(name: Pass, attention: Tensor) -> Tensor:
    """Return what a pass returned as "log", with a floor under what is as good as nothing."""
    return attention if name == "late" else attention.clamp(min=_LEAST_MASS).log()


def as_mass(name: Pass, log: Tensor) -> Tensor:
    """Return the mass of what is given as "log"."""
    return log.sigmoid() if name == "late" else log.exp()
