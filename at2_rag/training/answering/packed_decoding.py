"""The attention of several texts that go on side by side, their new tokens packed into one row.

Nothing is padded or copied: keys and values stay where they were first written, and query heads
that share them are read as rows of one product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from at2_rag.reading.attention import AttentionCall


class PackedDecoding:
    """Reads new tokens of several texts, each over its own past and causally itself.

    Args:
        keys: For each text [L, Hkv, W, D]: the states of its past, then room for its new tokens,
            which are filled in as they are read.
        values: The same shapes.
    """

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        self._keys, self._values = keys, values
        self._parts: list[tuple[int, int, int]] = []

    def begin(self, going: Sequence[int], filled: Sequence[int], lengths: Sequence[int]) -> None:
        """Say which texts the next row holds, how full their pasts are, how many tokens."""
        self._parts = list(zip(going, filled, lengths, strict=True))

    def attend(self, call: AttentionCall) -> Tensor:
        """Return what the tokens of the row read, [1, N, H, D]."""
        read, start = [], 0
        for place, filled, length in self._parts:
            own, end = slice(start, start + length), filled + length
            keys, values = self._keys[place][call.layer], self._values[place][call.layer]
            keys[:, filled:end] = call.key[0, :, own]
            values[:, filled:end] = call.value[0, :, own]
            query = call.query[0, :, own]
            read.append(_attend(query, keys[:, :end], values[:, :end], call.scaling))
            start = own.stop
        return torch.cat(read, dim=1).transpose(0, 1)[None]


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Return what a text's last Q tokens read, [H, Q, D].

    Args:
        query: [H, Q, D].
        keys: [Hkv, W, D], the tokens' own last.
        values: The same shape.
        scale: Factor on the products.
    """
    heads, length, dim = query.shape
    key_heads, width, _ = keys.shape
    if length == width:
        # From its start on a text needs no mask, which spares the half that would be hidden.
        return scaled_dot_product_attention(
            query[None], keys[None], values[None], is_causal=True, scale=scale, enable_gqa=True
        )[0]
    mask, shared = None, heads // key_heads
    if length > 1:
        mask = torch.ones(length, width, dtype=torch.bool, device=keys.device).tril(width - length)
        mask = mask.repeat(shared, 1)
    # Query heads that share a key head become rows of it.
    folded = query.reshape(1, key_heads, shared * length, dim)
    output = scaled_dot_product_attention(
        folded, keys[None], values[None], attn_mask=mask, scale=scale
    )
    return output.reshape(heads, length, dim)
