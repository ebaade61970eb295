"""The attention of new tokens over the states of what came before them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from at2_rag.reading.attention import AttentionCall


def attend_over(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Return what tokens read: query [H, Q, D], keys and values [Hkv, W, D] -> [H, Q, D].

    `mask` is [Q, W], bool or additive; None to hide nothing.
    """
    heads, length, dim = query.shape
    key_heads = len(keys)
    shared = heads // key_heads
    # Query heads that share a key head become rows of it: [H, Q, D] -> [1, Hkv, H / Hkv * Q, D].
    output = scaled_dot_product_attention(
        query.reshape(1, key_heads, shared * length, dim),
        keys[None],
        values[None],
        attn_mask=None if mask is None else mask.repeat(shared, 1),
        scale=scale,
    )
    return output.reshape(heads, length, dim)


class PackedDecoding:
    """Reads new tokens of several texts, packed into one row.

    Each text's tokens attend to its past and causally to themselves. Nothing is padded or copied:
    keys and values, [L, Hkv, W, D] for each text, hold its past and then room for its new tokens,
    which are filled in as they are read.
    """

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        self._keys, self._values = keys, values
        self._parts: list[tuple[int, int, int]] = []

    def begin(self, texts: Sequence[int], filled: Sequence[int], lengths: Sequence[int]) -> None:
        """Say which texts the next row holds, how full their pasts are, how many tokens."""
        self._parts = list(zip(texts, filled, lengths, strict=True))

    def attend(self, call: AttentionCall) -> Tensor:
        """Return what the tokens of the row read, [1, N, H, D]."""
        outputs, start = [], 0
        for text, filled, length in self._parts:
            rows, end = slice(start, start + length), filled + length
            keys, values = self._keys[text][call.layer], self._values[text][call.layer]
            keys[:, filled:end] = call.key[0, :, rows]
            values[:, filled:end] = call.value[0, :, rows]
            query = call.query[0, :, rows]
            outputs.append(_attend_last(query, keys[:, :end], values[:, :end], call.scaling))
            start = rows.stop
        return torch.cat(outputs, dim=1).transpose(0, 1)[None]


def _attend_last(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Return what a text's last Q tokens read causally, [H, Q, D]."""
    length, width = query.shape[1], keys.shape[1]
    if length == width:
        # From its start on a text needs no mask, which spares the half that would be hidden.
        return scaled_dot_product_attention(
            query[None], keys[None], values[None], is_causal=True, scale=scale, enable_gqa=True
        )[0]
    mask = None
    if length > 1:
        mask = torch.ones(length, width, dtype=torch.bool, device=keys.device).tril(width - length)
    return attend_over(query, keys, values, mask, scale)
