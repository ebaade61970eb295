"""Chunk states in eight bits: half the bytes of bfloat16, a quarter of float32.

Each row of D numbers (a token's key or value in one head of one layer) is kept as integers in
[-127, 127] with one scale: the row's largest absolute value divided by 127.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from at2_rag.reading.chunk_states import ChunkState, are_plausible

_MOST = 127


@dataclass(frozen=True, slots=True, eq=False)
class Int8State:
    """A chunk state in eight bits."""

    keys: Tensor  # [L, Hkv, W, D] int8
    key_scales: Tensor  # [L, Hkv, W, 1] float32
    values: Tensor  # [L - 1, Hkv, W, D] int8, or [L, ...] as in `ChunkState`
    value_scales: Tensor  # [L - 1, Hkv, W, 1] float32, likewise
    like: Tensor  # empty, of the original state's dtype

    @classmethod
    def of(cls, state: ChunkState) -> Int8State:
        """Round a state; rows that aren't finite stay so."""
        return cls(*_rounded(state.keys), *_rounded(state.values), like=state.keys.new_empty(0))

    def restored(self) -> ChunkState:
        """Return a state of the original dtype, each number within half a scale of the original."""
        keys, values = self.keys * self.key_scales, self.values * self.value_scales
        return ChunkState(keys.to(self.like.dtype), values.to(self.like.dtype))

    @property
    def is_usable(self) -> bool:
        """Whether types and shapes belong together, with numbers that a model may have made."""
        pairs = ((self.keys, self.key_scales), (self.values, self.value_scales))
        return self.like.is_floating_point() and all(
            steps.dtype == torch.int8
            and scales.dtype == torch.float32
            and scales.shape == (*steps.shape[:-1], 1)
            and are_plausible(scales)
            for steps, scales in pairs
        )

    def in_main_memory(self) -> Int8State:
        """Return the state in main memory."""
        return Int8State(*(getattr(self, field.name).cpu() for field in fields(self)))

    @property
    def nbytes(self) -> int:
        """Size of the state in memory."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))


def _rounded(numbers: Tensor) -> tuple[Tensor, Tensor]:
    numbers = numbers.float()  # [..., D] -> [..., D] int8 and [..., 1] float32
    scales = numbers.abs().amax(-1, keepdim=True) / _MOST
    steps = numbers / scales.clamp(min=torch.finfo(torch.float32).tiny)
    whole = steps.round().nan_to_num(0.0).clamp(-_MOST, _MOST)
    return whole.to(torch.int8), scales
