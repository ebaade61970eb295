"""What is kept of a chunk that was read: keys, or keys and values, of some heads."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEVELS = 127  # of eight bits, on either side of 0
_PRIVATE: Mapping[str, int] = (  # to this process, where there is such a choice
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
_LEAST_MAPPED = 2**16  # bytes; a process has some 65,000 mappings at most
_MOST = 1e6  # far above what models keep, far below what would overflow in a reading


@dataclass(frozen=True, slots=True, eq=False)
class KeptHeads:
    """Keys (or keys, then values) of G heads for W tokens, exact or in eight bits.

    In eight bits a vector is its levels times its scale, so that no token and no head coarsens
    another.
    """

    levels: Tensor  # [G, W, D] int8; or the vectors, in the model's dtype
    scales: Tensor | None = None  # [G, W] float16, at least 0; None for exact vectors

    @classmethod
    def rounded(cls, vectors: Tensor) -> KeptHeads:
        """Round vectors [G, W, D] to eight bits."""
        levels = torch.empty_like(vectors, dtype=torch.int8)
        scales = vectors.new_empty(vectors.shape[:2], dtype=torch.float16)
        for head, exact in enumerate(vectors):  # which then stays in the processor's cache
            numbers = exact.float()
            least, most = numbers.aminmax(dim=-1)
            scales[head] = torch.maximum(most, -least) / _LEVELS
            factors = scales[head].float().clamp(min=torch.finfo(torch.float32).tiny).reciprocal()
            levels[head] = (numbers * factors[:, None]).round_().clamp_(-_LEVELS, _LEVELS)
        return cls(levels, scales)

    @classmethod
    def joined(cls, parts: Sequence[KeptHeads], dim: int = 1) -> KeptHeads:
        """Put what is kept of sources in eight bits one after another, or with `dim=0` heads."""
        if len(parts) == 1:
            return parts[0]
        scales = [part.scales for part in parts if part.scales is not None]
        return cls(torch.cat([part.levels for part in parts], dim=dim), torch.cat(scales, dim=dim))

    def split(self, lengths: Sequence[int]) -> list[KeptHeads]:
        """Return a copy of what is kept of each of several sources."""
        edges = torch.tensor([0, *lengths]).cumsum(0).tolist()
        return [
            self.tokens_at(slice(start, end)).copied()
            for start, end in zip(edges[:-1], edges[1:], strict=True)
        ]

    def tokens_at(self, tokens: slice | Tensor) -> KeptHeads:
        """Return the same of some tokens."""
        scales = None if self.scales is None else self.scales[:, tokens]
        return KeptHeads(self.levels[:, tokens], scales)

    def copied(self) -> KeptHeads:
        """Return a copy."""
        return KeptHeads(self.levels.clone(), None if self.scales is None else self.scales.clone())

    def mapped(self) -> KeptHeads:
        """Return a copy in an anonymous memory map, which is unmapped when the copy is freed.

        On the heap, what lives long lies among tensors that come and go, and keeps the memory
        between from being given back. What is small stays as it is, and all where the system has
        no more mappings.
        """
        if self.nbytes < _LEAST_MAPPED:
            return self
        parts = [self.levels] if self.scales is None else [self.levels, self.scales]
        try:
            pages = mmap.mmap(-1, self.nbytes, **_PRIVATE)
        except OSError:
            return self
        copies, start = [], 0
        for part in parts:
            copy = torch.frombuffer(pages, dtype=part.dtype, count=part.numel(), offset=start)
            copies.append(copy.view(part.shape).copy_(part))
            start += part.nbytes
        return KeptHeads(*copies)

    def restored(self) -> Tensor:
        """Return the vectors, [G, W, D]: exact ones as they are, rounded ones in float32."""
        if self.scales is None:
            return self.levels
        return self.levels.float() * self.scales.float()[..., None]

    def to(self, device: torch.device | str) -> KeptHeads:
        """Return the same on a device."""
        scales = None if self.scales is None else self.scales.to(device)
        return KeptHeads(self.levels.to(device), scales)

    def fits(self, shape: tuple[int, int, int], dtype: torch.dtype) -> bool:
        """Whether the levels have a shape [G, W, D] and a dtype, and the scales theirs."""
        if (self.levels.dtype, tuple(self.levels.shape)) != (dtype, shape):
            return False
        if dtype != torch.int8 or self.scales is None:
            return self.scales is None and dtype != torch.int8
        return self.scales.dtype == torch.float16 and self.scales.shape == shape[:2]

    @property
    def is_plausible(self) -> bool:
        """Whether all numbers are ones that a model may have left; a forged file has any."""
        numbers, least, most = self.levels, -_MOST, _MOST
        if self.scales is not None:
            numbers, least, most = self.scales, 0.0, _MOST / _LEVELS
        low, high = map(float, torch.aminmax(numbers)) if numbers.numel() else (0.0, 0.0)
        return least <= low and high < most  # NaN isn't

    @property
    def tokens(self) -> int:
        """Number of tokens, W."""
        return self.levels.shape[1]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.levels.nbytes + (0 if self.scales is None else self.scales.nbytes)
