"""Attention of a question's rows to a span of keys, before it is known what else they attend to.

Spans are read one at a time and then weighed against each other by their log-sum-exps, so that only
one span's logits are in memory.

Shapes in here: C copies of a question that attend to different keys, R = H / Hkv query heads that
share a key head, q rows of the question, W tokens, D numbers a head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_LEAST_PEAK = -1e30


@dataclass(frozen=True, slots=True, eq=False)
class KeySpan:
    """Keys and values of a span of n sources, one after another, for each copy its own."""

    keys: Tensor  # [Hkv, C, n * W, D]
    values: Tensor  # [Hkv, C, n * W, D]
    # Added to the logits [C, R, q, n * W], perhaps by broadcasting: -inf where a row may not look.
    hidden: Tensor | None = None
    sources: int = 1  # n

    def read(self, query: Tensor, *, keys_only: bool) -> SpanReading:
        """Read the span; logits, softmax and the sum of values are float32.

        Of several sources, one that is more than about 87 below the strongest counts as not
        attended to. `query` is [Hkv, C, R, q, D] float32, scaled.
        """
        shape = query.shape[:4]
        logits = query.flatten(2, 3) @ self.keys.float().transpose(-1, -2)
        if self.hidden is not None:
            logits.view(*shape, -1).add_(self.hidden)
        # The bound keeps sources without tokens from giving NaN; no logit comes near it.
        peak = logits.amax(-1, keepdim=True).clamp(min=_LEAST_PEAK)
        weights = logits.sub_(peak).exp_()
        lse = weights.view(*weights.shape[:3], self.sources, -1).sum(-1).log() + peak
        if keys_only:
            weighted = query.new_empty(*shape, 0)
        else:
            weighted = (weights @ self.values.float()).view(*shape, -1)
        return SpanReading(lse.view(*shape, -1), peak.view(*shape, 1), weighted)


@dataclass(frozen=True, slots=True, eq=False)
class SpanReading:
    """What a question's rows read in a span.

    `weighted` is the sum of the values, each times the exponential of its logit less the peak.
    """

    lse: Tensor  # [Hkv, C, R, q, n], log-sum-exp of the logits over each source
    peak: Tensor  # [Hkv, C, R, q, 1], the greatest logit
    weighted: Tensor  # [Hkv, C, R, q, D]; D is 0 where only keys were read

    def divided(self, copies: int) -> SpanReading:
        """Return the reading of one copy with C * R heads a key head as that of C copies."""
        heads, _, rows, *_ = self.lse.shape
        shape = heads, copies, rows // copies, self.lse.shape[3]
        parts = (self.lse, self.peak, self.weighted)
        return SpanReading(*(part.view(*shape, part.shape[-1]) for part in parts))

    def output(self, total: Tensor) -> Tensor:
        """Return the span's part of the attention output, [Hkv, C, R, q, D] float32.

        `total` [Hkv, C, R, q, 1] is the log-sum-exp over everything attended to.
        """
        return self.weighted * (self.peak - total).exp()
