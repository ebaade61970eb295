"""Questions over chunk states: only the question's tokens run.

*Together*, over all states at once, so that sources compete, as they do in one prompt. *Apart*,
over each state by itself, so that a source's features don't know how many others there are; of a
long query only its first and last tokens, so that its length doesn't multiply with the sources.

Both, and any number of questions, share forward passes: their tokens are packed into one row, and
only the attention keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.attention import AttentionCall, PassComplete, SpanAttention, log_ratio
from at2_rag.reading.chunk_states import runs_of
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.reading.span_reading import KeySpan
from at2_rag.reading.state_groups import GroupedStates, StateGroup

CALL_TOKENS = 2048  # most question tokens of one forward pass, unless a single one is longer
APART_TOKENS = 128  # most tokens of a query that are read apart
QUESTION_ROWS = 32  # most rows of the question whose logits over a group are held at a time


def run_readings(model: ScoringModel, readings: Sequence[QuestionReading]) -> None:
    """Run the forward passes that readings need; sharing a pass changes only rounding."""
    pieces = [piece for reading in readings for piece in reading.pieces]
    for run in runs_of([len(piece.input_ids) for piece in pieces], CALL_TOKENS):
        shared = pieces[run]
        model.run_packed(
            torch.cat([piece.input_ids for piece in shared]),
            torch.cat([piece.position_ids for piece in shared]),
            _SideBySide(shared),
        )


class QuestionReading:
    """A question over the states of one layout: over all sources at once, or each by itself."""

    def __init__(
        self, model: ScoringModel, states: GroupedStates, layout: PromptLayout, *, together: bool
    ) -> None:
        if not together:
            layout = layout.with_short_query(APART_TOKENS)
        most = max(1, CALL_TOKENS // len(layout.question_ids))
        batches = [states.groups] if together else _batches(states.groups, most)
        self.pieces = [
            _Piece(model, states, groups, layout, together=together) for groups in batches
        ]
        self._groups = [group for groups in batches for group in groups]
        self._firsts = states.firsts

    def attention(self) -> SpanAttention:
        """Return what was read, sources (or parts) in the layout's order."""
        members = torch.cat([group.members for group in self._groups])
        # Equal sources share the features of the first, so that their scores tie to the last bit.
        order = members.argsort()[list(self._firsts)]
        parts = [part for piece in self.pieces for part in piece.parts]
        mass, ratio = (
            torch.cat([torch.stack([layer[kind] for layer in part]) for part in parts], dim=-1)
            for kind in (0, 1)
        )
        return SpanAttention(mass[..., order], ratio[..., order])


class _SideBySide:
    """The attention of several pieces that share a pass, each by itself."""

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = pieces

    def attend(self, call: AttentionCall) -> Tensor:
        read, start, complete = [], 0, False
        for piece in self._pieces:
            rows = slice(start, start + len(piece.input_ids))
            start = rows.stop
            part = replace(
                call,
                query=call.query[:, :, rows],
                key=call.key[:, :, rows],
                value=call.value[:, :, rows],
            )
            try:
                read.append(piece.attend(part))
            except PassComplete:  # in the last layer all say so
                complete = True
        if complete:
            raise PassComplete
        return torch.cat(read, dim=1)


def _batches(groups: Sequence[StateGroup], most: int) -> list[Sequence[StateGroup]]:
    """Split groups into batches of at most `most` sources, cutting groups that are larger."""
    cut = [
        group.rows(start, start + most)
        for group in groups
        for start in range(0, len(group.members), most)
    ]
    return [cut[run] for run in runs_of([len(group.members) for group in cut], most)]


class _Piece:
    """Copies of the question over ready states: one over all of them, or one for each source.

    They are one after another in `input_ids` and `position_ids` [N], and only the attention keeps
    them apart. Logits, softmax and the weighted sum of values are float32. `parts` collects for
    each group of states, layer by layer, mass and log ratio, both [H, G].

    Shapes in here: C copies of the question, Q tokens of one, q of them in a block, R = H / Hkv
    query heads that share a key head.
    """

    def __init__(
        self,
        model: ScoringModel,
        states: GroupedStates,
        groups: Sequence[StateGroup],
        layout: PromptLayout,
        *,
        together: bool,
    ) -> None:
        question = torch.tensor(layout.question_ids, device=model.device)
        past, length = states.prefix.tokens, len(question)
        if together:
            starts = torch.tensor([past + states.longest], device=model.device)
        else:
            starts = past + torch.cat([group.lengths for group in groups])
        offsets = torch.arange(length, device=model.device)
        self.input_ids = question.repeat(len(starts))
        self.position_ids = (starts[:, None] + offsets).flatten()
        self.parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in groups]
        self._prefix = states.prefix
        self._groups = groups
        self._sizes = [len(group.members) for group in groups]
        self._depth, self._target = model.depth, slice(*layout.target)
        self._together = together
        self._rows = QUESTION_ROWS if together else length
        self._future = torch.full((length, length), -torch.inf, device=model.device).triu(1)

    def attend(self, call: AttentionCall) -> Tensor:
        copies = 1 if self._together else sum(self._sizes)
        heads, rows, dim = call.query.shape[1:]
        key_heads, length = call.key.shape[1], rows // copies
        query = call.query[0].float().mul(call.scaling)
        # [H, C * Q, D] -> [Hkv, C, R, Q, D]
        query = query.view(key_heads, heads // key_heads, copies, length, dim).transpose(1, 2)
        # [1, Hkv, C * Q, D] -> [Hkv, C, Q, D]
        shape = (key_heads, copies, length, dim)
        keys, values = call.key.view(shape), call.value.view(shape)
        last = call.layer == self._depth - 1
        spans = [
            _span_of(group, call.layer, keys_only=last, together=self._together)
            for group in self._groups
        ]
        blocks = [
            self._attend_rows(call.layer, part, KeySpan(keys, values, future), spans)
            for part, future in zip(
                torch.split(query, self._rows, dim=3),
                torch.split(self._future, self._rows),
                strict=True,
            )
        ]
        mass, ratio, read = zip(*blocks, strict=True)
        self._keep_features(torch.cat(mass, dim=2), torch.cat(ratio, dim=2))
        if last:
            raise PassComplete
        output = torch.cat(read, dim=3).permute(1, 3, 0, 2, 4)  # [C, Q, Hkv, R, D]
        return output.reshape(1, rows, heads, dim).to(call.query.dtype)

    def _attend_rows(
        self, layer: int, query: Tensor, question: KeySpan, spans: Sequence[KeySpan]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read rows [Hkv, C, R, q, D] of the question (float32, scaled).

        Returns mass and log ratio of the sources, [Hkv, R, q, S], and the attention's output,
        [Hkv, C, R, q, D], which is empty in the last layer.
        """
        last = layer == self._depth - 1
        copies, axis = query.shape[1], 4 if self._together else 1
        keys = self._prefix.keys[layer][:, None]
        before = KeySpan(keys, keys if last else self._prefix.values[layer][:, None])
        # One copy with C * R heads a key head stands for C copies.
        prefix = before.read(query.flatten(1, 2)[:, None], keys_only=last).divided(copies)
        within = question.read(query, keys_only=last)
        sources = [
            span.read(rows, keys_only=last)
            for rows, span in zip(self._by_group(query), spans, strict=True)
        ]
        source_lse = torch.cat([source.lse for source in sources], dim=axis)
        total = torch.cat([prefix.lse, within.lse, source_lse], dim=4).logsumexp(4, keepdim=True)
        # [Hkv, C, R, q, n] -> [Hkv, R, q, S]
        mass, ratio = (
            values.permute(0, 2, 3, 1, 4).flatten(3)
            for values in ((source_lse - total).exp(), log_ratio(source_lse, prefix.lse))
        )
        if last:
            return mass, ratio, query[..., :0]
        read = prefix.output(total) + within.output(total)
        parts = [
            source.output(rows) for source, rows in zip(sources, self._by_group(total), strict=True)
        ]
        return mass, ratio, sum(parts, read) if self._together else read + torch.cat(parts, dim=1)

    def _by_group(self, rows: Tensor) -> Sequence[Tensor]:
        """Return what belongs to each group of [Hkv, C, ...]: its copies, or the only one."""
        if self._together:
            return [rows] * len(self._groups)
        return torch.split(rows, self._sizes, dim=1)

    def _keep_features(self, mass: Tensor, ratio: Tensor) -> None:
        # [Hkv, R, Q, S] -> [H, S], the mean over the target rows
        by_group = (
            torch.split(values[:, :, self._target].mean(2).flatten(0, 1), self._sizes, 1)
            for values in (mass, ratio)
        )
        for part, features in zip(self.parts, zip(*by_group, strict=True), strict=True):
            part.append(features)


def _span_of(group: StateGroup, layer: int, *, keys_only: bool, together: bool) -> KeySpan:
    """Return what the question reads of a group: one copy all of it, or each copy one source."""
    keys, values = group.layer(layer, keys_only=keys_only)
    padding = group.padding
    if not together:
        return KeySpan(keys, values, None if padding is None else padding[:, None, None])
    # [Hkv, G, W, D] -> [Hkv, 1, G * W, D]
    keys, values = (whole.flatten(1, 2)[:, None] for whole in (keys, values))
    padding = None if padding is None else padding.flatten()
    return KeySpan(keys, values, padding, sources=len(group.members))
