"""Keys and values of chunks in eight bits: what is kept of a chunk that was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEVELS = 127  # of eight bits, on either side of 0
_MOST_SCALE = 1e4  # far above what models need, far below what would overflow in a reading


@dataclass(frozen=True, slots=True, eq=False)
class KeptHeads:
    """Keys (or keys, then values) of G heads for W tokens, one number in eight bits each.

    A vector is its levels times its scale, so that no token and no head coarsens another.
    """

    levels: Tensor  # [G, W, D] int8
    scales: Tensor  # [G, W] float16, at least 0

    @classmethod
    def of(cls, vectors: Tensor) -> KeptHeads:
        """Round vectors [G, W, D]."""
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
        """Put sources one after another, or with `dim=0` heads."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            torch.cat([part.levels for part in parts], dim=dim),
            torch.cat([part.scales for part in parts], dim=dim),
        )

    def split(self, lengths: Sequence[int]) -> list[KeptHeads]:
        """Return each of several sources, in memory of its own."""
        levels, scales = (torch.split(one, list(lengths), 1) for one in (self.levels, self.scales))
        return [
            KeptHeads(level.clone(), scale.clone())
            for level, scale in zip(levels, scales, strict=True)
        ]

    def restored(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the vectors, [G, W, D]."""
        vectors = torch.empty_like(self.levels, dtype=dtype)
        for head, levels in enumerate(self.levels):
            vectors[head] = levels.float().mul_(self.scales[head].float()[:, None])
        return vectors

    def to(self, device: torch.device | str) -> KeptHeads:
        """Return the same on a device."""
        return KeptHeads(self.levels.to(device), self.scales.to(device))

    def fits(self, heads: int, tokens: int, dim: int) -> bool:
        """Whether this may be what is kept of such a source; a forged file has any numbers."""
        levels, scales = self.levels, self.scales
        return (
            (levels.dtype, scales.dtype) == (torch.int8, torch.float16)
            and levels.shape == (heads, tokens, dim)
            and scales.shape == levels.shape[:2]
            and bool(((scales >= 0) & (scales < _MOST_SCALE)).all())  # NaN isn't
        )

    @property
    def tokens(self) -> int:
        """Number of tokens, W."""
        return self.levels.shape[1]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.levels.nbytes + self.scales.nbytes
