"""A question with its chunks and a finished answer, read in one causal pass.

Targets are the places that predict the answer's tokens, each one token earlier, as in the
reference implementation of AT2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from at2_rag.attention import AttentionCall, PassComplete, SpanAttention, log_ratio, target_logits
from at2_rag.prompt import AnswerLayout
from at2_rag.scoring_model import ScoringModel

TARGET_ROWS = 64
"""Most target rows whose logits over the whole prompt are held at a time."""

Span = tuple[int, int]


def read_answer(
    model: ScoringModel, layout: AnswerLayout, targets: Sequence[Span], sources: Sequence[Span]
) -> list[SpanAttention]:
    """Read the attention of parts of an answer to parts of its prompt.

    Args:
        model: The scoring model.
        layout: A joint prompt with an answer, within the model's window.
        targets: Parts of the answer, half-open ranges in `layout.answer_ids`; none empty.
        sources: Parts of the prompt, half-open ranges in `layout.input_ids`; an empty one has no
            mass, and the log ratio of what is never seen.

    Returns:
        One `SpanAttention` a target, over the layers in use.
    """
    start = len(layout.input_ids) - len(layout.answer_ids) - 1
    reading = _AnswerReading(model.depth, start, targets, sources, len(layout.prompt.prefix_ids))
    model.run(torch.tensor([layout.input_ids], device=model.device), reading)
    # Layers of a hybrid model that have no attention capture nothing: their features are 0.
    shape = (2, model.depth, len(targets), model.heads, len(sources))
    read = torch.zeros(shape, device=model.device)
    for layer, values in reading.captured.items():
        read[:, layer] = values
    return [SpanAttention(read[0, :, part], read[1, :, part]) for part in range(len(targets))]


class _AnswerReading:
    """Captures by target; `captured` holds mass and log ratio of each layer, [2, R, H, S]."""

    def __init__(
        self,
        depth: int,
        start: int,
        targets: Sequence[Span],
        sources: Sequence[Span],
        prefix: int,
    ) -> None:
        self.captured: dict[int, Tensor] = {}
        self._depth, self._targets, self._sources = depth, targets, sources
        self._start, self._prefix = start, prefix
        self._first = min(first for first, _ in targets)
        self._last = max(last for _, last in targets)

    def attend(self, call: AttentionCall) -> Tensor:
        rows = torch.arange(self._first, self._last, device=call.query.device)
        shares = torch.stack(
            [((rows >= first) & (rows < last)) / (last - first) for first, last in self._targets]
        )
        total: Tensor | None = None
        for block, share in zip(
            torch.split(rows, TARGET_ROWS), torch.split(shares, TARGET_ROWS, dim=1), strict=True
        ):
            read = torch.einsum("rt,khts->krhs", share, self._read(call, block + self._start))
            total = read if total is None else total + read
        assert total is not None  # every target has a row
        self.captured[call.layer] = total
        if call.layer == self._depth - 1:
            raise PassComplete
        return call.plain()

    def _read(self, call: AttentionCall, rows: Tensor) -> Tensor:
        """Return mass and log ratio of single rows, [2, H, T, S]."""
        logits = target_logits(call, rows[None])[0]
        whole = logits.logsumexp(-1, keepdim=True)
        if call.sinks is not None:
            sinks = call.sinks.float().view(-1, 1, 1).expand_as(whole)
            whole = torch.logaddexp(whole, sinks)
        # One by one, since a single long source would pad all others to its own length.
        sums = [logits[..., first:last].logsumexp(-1) for first, last in self._sources]
        source = torch.stack(sums, dim=-1)
        prefix = logits[..., : self._prefix].logsumexp(-1, keepdim=True)
        return torch.stack([(source - whole).exp(), log_ratio(source, prefix)])
