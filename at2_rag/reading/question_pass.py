"""Questions over chunk states: only the question's tokens run.

*Together*, over all states at once, so that sources compete, as they do in one prompt. *Apart*,
over each state by itself, so that a source's features don't know how many others there are; of a
long query only its first and last tokens, so that its length doesn't multiply with the sources.

Both, and any number of questions, share forward passes: their tokens are packed into one row, and
only the attention keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.attention import AttentionCall, PassComplete
from at2_rag.reading.chunk_states import ChunkState, runs_of
from at2_rag.reading.late import TARGET_TOKENS
from at2_rag.reading.scoring_model import ScoringModel

CALL_TOKENS = 2048  # most question tokens of one forward pass, unless a single one is longer
QUESTION_ROWS = 32  # most rows of a question whose logits are held at a time


def run_readings(model: ScoringModel, readings: Sequence[QuestionReading]) -> None:
    """Run the forward passes that readings need; sharing a pass changes only rounding."""
    copies = [copy for reading in readings for copy in reading.copies]
    for run in runs_of([len(copy.input_ids) for copy in copies], CALL_TOKENS):
        shared = copies[run]
        ids = torch.tensor([token for copy in shared for token in copy.input_ids])
        positions = [torch.arange(len(copy.input_ids)) + copy.start for copy in shared]
        model.run_packed(
            ids.to(model.device), torch.cat(positions).to(model.device), _SideBySide(shared)
        )


class QuestionReading:
    """A question over parts of the sources of one layout: all at once, or each by itself.

    Tokens in no part are hidden from the question. It stands after the longest source, and apart
    after the whole source that the part is of.
    """

    def __init__(
        self,
        model: ScoringModel,
        prefix: ChunkState,
        layout: PromptLayout,
        states: Mapping[tuple[int, ...], ChunkState],
        parts: Sequence[SourcePart],
        *,
        together: bool,
    ) -> None:
        if not together:
            layout = layout.with_short_query(TARGET_TOKENS)
        ids = layout.source_ids
        # Read in an order that isn't the caller's; equal parts share the features of the first, so
        # that their scores tie to the last bit. Apart these are read once.
        keys = [(part.end - part.start, ids[part.source], part.start) for part in parts]
        order = sorted(range(len(parts)), key=keys.__getitem__)
        if not together:
            order = list({keys[index]: index for index in order}.values())
        position_of: dict[tuple[int, tuple[int, ...], int], int] = {}
        for number, index in enumerate(order):
            position_of.setdefault(keys[index], number)
        self._order = [position_of[key] for key in keys]
        read = [states[ids[parts[index].source]].tokens_of(parts[index]) for index in order]
        if together:
            start = prefix.tokens + max(map(len, ids))
            self.copies = [_Copy(model, prefix, layout, read, start)]
        else:
            starts = [prefix.tokens + len(ids[parts[index].source]) for index in order]
            self.copies = [
                _Copy(model, prefix, layout, [state], start)
                for state, start in zip(read, starts, strict=True)
            ]

    def mass(self) -> Tensor:
        """Return the attention mass of the parts, in order, [L, H, S]."""
        mass = torch.cat([torch.stack(copy.mass) for copy in self.copies], dim=-1)
        return mass[..., self._order]


class _SideBySide:
    """The attention of copies of questions that share a pass, each by itself."""

    def __init__(self, copies: Sequence[_Copy]) -> None:
        self._copies = copies

    def attend(self, call: AttentionCall) -> Tensor:
        read, start = [], 0
        for copy in self._copies:
            rows = slice(start, start + len(copy.input_ids))
            start = rows.stop
            query, key, value = (one[:, :, rows] for one in (call.query, call.key, call.value))
            read.append(copy.attend(replace(call, query=query, key=key, value=value)))
        if self._copies[0].is_last(call.layer):
            raise PassComplete
        return torch.cat(read, dim=1)


class _Copy:
    """A copy of a question over the prefix, then some states, then itself.

    Logits, softmax and the weighted sum of values are float32. `mass` collects the attention to
    each state, layer by layer, [H, S].

    Shapes in here: Q tokens of the question, q of them in a block, R = H / Hkv query heads that
    share a key head, N tokens attended to.
    """

    def __init__(
        self,
        model: ScoringModel,
        prefix: ChunkState,
        layout: PromptLayout,
        states: Sequence[ChunkState],
        start: int,
    ) -> None:
        self.input_ids, self.start = layout.question_ids, start
        self.mass: list[Tensor] = []
        self._states = [prefix, *states]
        self._sizes = [state.tokens for state in self._states] + [len(self.input_ids)]
        self._target, self._depth = slice(*layout.target), model.depth

    def is_last(self, layer: int) -> bool:
        """Whether nothing is needed after this layer."""
        return layer == self._depth - 1

    def attend(self, call: AttentionCall) -> Tensor:
        """Return the copy's attention output, [1, Q, H, D]; empty in the last layer."""
        heads, rows, dim = call.query.shape[1:]
        keys = [state.keys[call.layer] for state in self._states]
        keys_all = torch.cat([*keys, call.key[0]], dim=1).float()  # [Hkv, N, D]
        # [H, Q, D] -> [Hkv, R, Q, D]
        query = call.query[0].float().mul(call.scaling).reshape(len(keys_all), -1, rows, dim)
        last = self.is_last(call.layer)
        if not last:
            values = [state.values[call.layer] for state in self._states]
            values_all = torch.cat([*values, call.value[0]], dim=1).float()
        mass, read = [], []
        for block in torch.split(torch.arange(rows), QUESTION_ROWS):
            # [Hkv, R, q, D] -> [Hkv, R, q, N]
            some = query[:, :, block]
            logits = (some.flatten(1, 2) @ keys_all.mT).view(*some.shape[:3], -1)
            future = torch.arange(rows) > block[:, None]
            logits[..., -rows:].masked_fill_(future.to(logits.device), -torch.inf)
            sums = [part.logsumexp(-1) for part in torch.split(logits, self._sizes, dim=-1)]
            total = torch.stack(sums, dim=-1).logsumexp(-1, keepdim=True)  # [Hkv, R, q, 1]
            of_states = torch.stack([logits.new_empty(logits.shape[:3]), *sums[1:-1]], -1)[..., 1:]
            mass.append((of_states - total).exp())
            if not last:
                weights = (logits - total).exp_()
                read.append((weights.flatten(1, 2) @ values_all).view(some.shape))
        # [Hkv, R, Q, S] -> [H, S], the mean over the target rows
        self.mass.append(torch.cat(mass, 2)[:, :, self._target].mean(2).flatten(0, 1))
        if last:
            return call.query[:, :0].transpose(1, 2)
        output = torch.cat(read, dim=2).permute(2, 0, 1, 3)  # [Q, Hkv, R, D]
        return output.reshape(1, rows, heads, dim).to(call.query.dtype)
