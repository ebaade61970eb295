"""Attention from a prompt's target tokens to its source spans, captured inside the model.

This is the only module that knows transformers' attention internals. One function is registered
with transformers' `AttentionInterface` under the name `IMPLEMENTATION`; a model switched to it
(see `scoring_model`) calls it in every attention layer. What happens there is decided by an
`AttentionReader`, an object that travels as a keyword argument of that one model call: there is
no global state, so calls from many threads don't see each other. Without one the function is plain
sdpa (or the family's own eager attention where sdpa can't serve it).

Axes, here and everywhere in at2_rag:

    B  prompts in a batch           S  sources (chunks, or windows of long chunks)
    T  target tokens                N  tokens attended to
    L  layers                       H  query heads (Hkv: key and value heads)
    D  head dimension               F  features of a source
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from at2_rag.errors import UnsupportedModelError

IMPLEMENTATION = "at2_rag"
READING_KEYWORD = "at2_reading"

TARGET_ROWS = 64  # most target rows of a prompt whose logits over all of it are held at a time

Span = tuple[int, int]


class PassComplete(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside the model when a reading has all it needs; ends the forward pass early."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionCall:
    """What one attention layer asks for."""

    layer: int
    query: Tensor  # [B, H, Q, D], after position embedding and normalisation
    key: Tensor  # [B, Hkv, N, D], likewise, not repeated for grouped queries
    value: Tensor  # [B, Hkv, N, D]
    mask: Tensor | None  # None: causal; bool [B, 1, Q, N], True: may be read; or float, additive
    scaling: float
    softcap: float | None  # limit c of `c * tanh(logit / c)`
    sinks: Tensor | None  # [H], logit of a position that takes attention and gives nothing
    plain: Callable[[], Tensor]  # computes the layer's ordinary output, [B, Q, H, D]


class AttentionReader(Protocol):
    """Decides what happens in each attention layer of one model call."""

    def attend(self, call: AttentionCall) -> Tensor:
        """Return the layer's attention output, [B, Q, H, D]; may raise `PassComplete`."""


class JointCapture:
    """Reads sources that stand in causal prompts: captures, and leaves the output as it is.

    Rows are processed `TARGET_ROWS` at a time, and spans one by one, since a single long one would
    pad all others to its own length. An empty source has no mass. The pass ends in layer `depth`.
    """

    def __init__(
        self,
        *,
        rows: Tensor,  # [B, T] int64, positions of the target tokens in the (padded) prompts
        shares: Tensor,  # [B, K, T], weight of each row in the mean of each of K targets, or 0
        sources: Sequence[Sequence[Span]],
        depth: int,
    ) -> None:
        # For each layer the mass, [B, K, H, S], S the most sources of a prompt.
        self.captured: dict[int, Tensor] = {}
        self._rows = torch.split(rows, TARGET_ROWS, dim=1)
        self._shares = torch.split(shares, TARGET_ROWS, dim=2)
        most = max(map(len, sources))
        self._sources = [[*spans, *[(0, 0)] * (most - len(spans))] for spans in sources]
        self._depth = depth

    def attend(self, call: AttentionCall) -> Tensor:
        """Capture the target rows; end the pass in the last layer."""
        for rows, shares in zip(self._rows, self._shares, strict=True):
            read = torch.einsum("bkt,bhts->bkhs", shares, self._read(call, rows))
            before = self.captured.get(call.layer)
            self.captured[call.layer] = read if before is None else before + read
        if call.layer == self._depth - 1:
            raise PassComplete
        return call.plain()

    def _read(self, call: AttentionCall, rows: Tensor) -> Tensor:
        """Return the mass of single rows, [B, H, T, S]."""
        logits = target_logits(call, rows)
        total = logits.logsumexp(-1, keepdim=True)
        if call.sinks is not None:
            sinks = call.sinks.float().view(1, -1, 1, 1).expand_as(total)
            total = torch.logaddexp(total, sinks)
        return (span_logsumexp(logits, self._sources) - total).exp()


def target_logits(call: AttentionCall, targets: Tensor) -> Tensor:
    """Return the logits [B, H, T, N] float32 of target rows [B, T]; -inf where a row is masked."""
    batch, heads, _, dim = call.query.shape
    rows = targets[:, None, :, None].expand(batch, heads, -1, dim)
    query = call.query.gather(2, rows).float()
    groups = heads // call.key.shape[1]
    key = call.key.float().repeat_interleave(groups, dim=1)
    logits = query @ key.transpose(-1, -2) * call.scaling
    if call.softcap is not None:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    if call.mask is None:
        positions = torch.arange(key.shape[2], device=targets.device)
        return logits.masked_fill(positions > targets[:, None, :, None], -torch.inf)
    mask = call.mask[..., : key.shape[2]]
    mask = mask.expand(batch, *mask.shape[1:])
    mask = mask.gather(2, targets[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
    if mask.dtype == torch.bool:
        return logits.masked_fill(~mask, -torch.inf)
    # Additive masks block with the dtype's lowest finite value, which must still mean "never".
    blocked = mask <= torch.finfo(mask.dtype).min / 2
    return (logits + mask.float()).masked_fill(blocked, -torch.inf)


def span_logsumexp(logits: Tensor, spans: Sequence[Sequence[Span]]) -> Tensor:
    """Return the log-sum-exp over each span, [B, H, T, N] -> [B, H, T, S]; -inf where empty."""
    return torch.stack(
        [
            torch.stack([row[..., start:end].logsumexp(-1) for start, end in ranges], dim=-1)
            for row, ranges in zip(logits, spans, strict=True)
        ]
    )


def _routed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Serve transformers' attention interface; see the module docstring."""
    reading: AttentionReader | None = kwargs.pop(READING_KEYWORD, None)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling

    def plain() -> Tensor:
        if softcap is None and s_aux is None:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **kwargs
            )[0]
        eager = sys.modules[type(module).__module__].eager_attention_forward
        mask = _additive(attention_mask, query, key)
        if s_aux is None:
            kwargs["softcap"] = softcap
        output: Tensor = eager(module, query, key, value, mask, scaling=scale, **kwargs)[0]
        return output

    if reading is None:
        return plain(), None
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} doesn't know its layer index, so its attention can't be "
            "captured; use a family that docs/your-data.md names"
        )
    call = AttentionCall(
        int(layer), query, key, value, attention_mask, scale, softcap, s_aux, plain
    )
    return reading.attend(call), None


def _additive(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    lowest = torch.finfo(query.dtype).min
    if mask is None:
        rows, columns = query.shape[2], key.shape[2]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril(columns - rows)
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill(~mask, lowest)


AttentionInterface.register(IMPLEMENTATION, _routed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
