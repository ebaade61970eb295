"""Questions over ready chunk states: only their own tokens run.

*Together*, over all states at once, so that sources compete, as they do in one prompt. *Apart*,
over each state by itself, so that a source's features don't know how many others there are.

Both, and any number of questions, share forward passes: their tokens are packed into one row, and
only the attention keeps them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from at2_rag.attention import AttentionCall, PassComplete, SpanAttention, log_ratio
from at2_rag.chunk_states import ChunkState
from at2_rag.prompt import PromptLayout
from at2_rag.scoring_model import ScoringModel
from at2_rag.state_groups import ReadyStates, StateGroup

CALL_TOKENS = 4096
"""Most question tokens of one forward pass (one longer question has a pass of its own)."""

QUESTION_ROWS = 32
"""Most rows of the question whose logits over all sources together are held at a time."""

_LEAST_PEAK = -1e30


def read_together(model: ScoringModel, states: ReadyStates, layout: PromptLayout) -> SpanAttention:
    """Read the question over all sources at once.

    Where the states are parts that hold every token, all but the division of the masses is as
    over whole sources: those of a source's parts add up to its own.

    Returns:
        Attention over the layers in use, sources (or parts) in the order they were gathered in.
    """
    return _read(model, QuestionReading(model, states, layout, together=True))


def read_apart(model: ScoringModel, states: ReadyStates, layout: PromptLayout) -> SpanAttention:
    """Read the question over each source by itself, many in one forward pass.

    Where the states are parts, the question sees the prefix and that part alone, and stands where
    it would after the whole source.

    Returns:
        Attention over the layers in use, sources (or parts) in the order they were gathered in.
    """
    return _read(model, QuestionReading(model, states, layout, together=False))


def _read(model: ScoringModel, reading: QuestionReading) -> SpanAttention:
    for call in question_calls(model, [reading]):
        call()
    return reading.attention()


def question_calls(
    model: ScoringModel, readings: Sequence[QuestionReading]
) -> list[Callable[[], None]]:
    """Return the forward passes that readings need, each to be called once.

    Args:
        model: The scoring model.
        readings: The readings, of one question or of several; what they share a pass with makes no
            difference but in rounding.
    """
    calls: list[list[_Piece]] = []
    size = 0
    for piece in (piece for reading in readings for piece in reading.pieces):
        if not calls or size + len(piece.input_ids) > CALL_TOKENS:
            calls.append([])
            size = 0
        calls[-1].append(piece)
        size += len(piece.input_ids)
    return [partial(_run, model, pieces) for pieces in calls]


class QuestionReading:
    """A question over the states of one layout, in one of the two ways.

    Args:
        model: The scoring model.
        states: The states.
        layout: The layout.
        together: Read the question over all sources at once, or over each by itself.

    Attributes:
        pieces: What has to go through the model, in pieces of at most `CALL_TOKENS`, or one copy
            of a longer question.
    """

    def __init__(
        self, model: ScoringModel, states: ReadyStates, layout: PromptLayout, *, together: bool
    ) -> None:
        self.pieces: list[_Piece] = []
        self._groups: list[StateGroup] = []
        self._firsts = states.firsts
        past = states.prefix.tokens
        question = torch.tensor(layout.question_ids, device=model.device)
        places = torch.arange(len(question), device=model.device)
        most = max(1, CALL_TOKENS // len(question))
        batches = [states.groups] if together else _batches(states.groups, most)
        for groups in batches:
            if together:
                starts = torch.tensor([past + states.longest], device=model.device)
            else:
                starts = past + torch.cat([group.lengths for group in groups])
            attention = _QuestionAttention(states.prefix, groups, model, layout, together=together)
            positions = (starts[:, None] + places).flatten()
            self.pieces.append(_Piece(question.repeat(len(starts)), positions, attention))
            self._groups.extend(groups)

    def attention(self) -> SpanAttention:
        """Return what was read, sources (or parts) in the order they were gathered in."""
        parts = [part for piece in self.pieces for part in piece.attention.parts]
        return _collect(parts, [group.members for group in self._groups], self._firsts)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Copies of a question that go through the model in one pass.

    Attributes:
        input_ids: [N] int64, the copies one after another.
        position_ids: [N] int64.
        attention: Keeps them apart.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention: _QuestionAttention


def _run(model: ScoringModel, pieces: Sequence[_Piece]) -> None:
    """Run pieces in one forward pass."""
    model.run_packed(
        torch.cat([piece.input_ids for piece in pieces]),
        torch.cat([piece.position_ids for piece in pieces]),
        _SideBySide(pieces),
    )


class _SideBySide:
    """The attention of several pieces that share a pass, each by itself."""

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = pieces

    def attend(self, call: AttentionCall) -> Tensor:
        read, start, complete = [], 0, False
        for piece in self._pieces:
            own = slice(start, start + len(piece.input_ids))
            start = own.stop
            part = replace(
                call,
                query=call.query[:, :, own],
                key=call.key[:, :, own],
                value=call.value[:, :, own],
            )
            try:
                read.append(piece.attention.attend(part))
            except PassComplete:  # in the last layer all say so
                complete = True
        if complete:
            raise PassComplete
        return torch.cat(read, dim=1)


def _batches(groups: Sequence[StateGroup], most: int) -> Iterator[list[StateGroup]]:
    """Split groups into batches of at most `most` sources, cutting groups that are larger."""
    batch: list[StateGroup] = []
    size = 0
    for group in groups:
        for start in range(0, len(group.members), most):
            piece = _slice(group, start, start + most)
            if batch and size + len(piece.members) > most:
                yield batch
                batch, size = [], 0
            batch.append(piece)
            size += len(piece.members)
    if batch:
        yield batch


def _slice(group: StateGroup, start: int, stop: int) -> StateGroup:
    return StateGroup(
        group.members[start:stop],
        group.lengths[start:stop],
        group.keys[:, start:stop],
        group.values[:, start:stop],
        group.padding[start:stop],
    )


def _collect(
    parts: Sequence[Sequence[tuple[Tensor, Tensor]]],
    members: Sequence[Tensor],
    firsts: Sequence[int],
) -> SpanAttention:
    """Join per-group features and put the sources back into their order."""
    # Equal sources share the features of the first, so that their scores tie to the last bit.
    place = torch.cat(list(members)).argsort()[list(firsts)]
    mass, ratio = (
        torch.cat([torch.stack([layer[kind] for layer in part]) for part in parts], dim=-1)
        for kind in (0, 1)
    )
    return SpanAttention(mass[..., place], ratio[..., place])


class _QuestionAttention:
    """Copies of the question over ready states: one over all of them, or one for each source.

    Logits, softmax and the weighted sum of values are float32. `parts` collects for each group
    of states, layer by layer, mass and log ratio, both [H, G].

    Shapes in here: C copies of the question, Q tokens of one, R = H / Hkv query heads that share
    a key head; rows of one key head are [R * Q].
    """

    def __init__(
        self,
        prefix: ChunkState,
        groups: Sequence[StateGroup],
        model: ScoringModel,
        layout: PromptLayout,
        *,
        together: bool,
    ) -> None:
        self.parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in groups]
        self._prefix, self._groups = prefix, groups
        self._depth, self._target = model.depth, slice(*layout.target)
        self._together = together
        length = len(layout.question_ids)
        self._future = torch.ones(length, length, dtype=torch.bool, device=model.device).triu(1)
        self._sizes = [len(group.members) for group in groups]

    def attend(self, call: AttentionCall) -> Tensor:
        copies = 1 if self._together else sum(self._sizes)
        heads, rows, dim = call.query.shape[1:]
        key_heads, length = call.key.shape[1], rows // copies
        shared = heads // key_heads
        query = call.query[0].float().mul(call.scaling).view(key_heads, shared, copies, length, dim)
        query = query.permute(2, 0, 1, 3, 4)
        keys, values = (
            own[0].view(key_heads, copies, length, dim).transpose(0, 1)
            for own in (call.key, call.value)
        )
        size = QUESTION_ROWS if self._together else length
        blocks = [
            self._attend_rows(call.layer, part, (keys, values), future)
            for part, future in zip(
                torch.split(query, size, dim=3), torch.split(self._future, size), strict=True
            )
        ]
        mass, ratio, read = (torch.cat(parts, dim=3) for parts in zip(*blocks, strict=True))
        self._collect(mass, ratio)
        if call.layer == self._depth - 1:
            raise PassComplete
        return read.permute(0, 3, 1, 2, 4).reshape(1, rows, heads, dim).to(call.query.dtype)

    def _attend_rows(
        self, layer: int, query: Tensor, own_states: tuple[Tensor, Tensor], future: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read some rows of the question; each has a softmax of its own.

        Args:
            layer: The layer.
            query: [C, Hkv, R, q, D] float32, scaled.
            own_states: The question's own keys and values, [C, Hkv, Q, D].
            future: [q, Q], which of its own tokens a row may not see.

        Returns:
            Mass and log ratio of the sources, [S, Hkv, R, q], and the attention's output,
            [C, Hkv, R, q, D]; in the last layer that is empty.
        """
        shape = query.shape
        query = query.reshape(*shape[:2], -1, shape[-1])
        prefix = _Span(query, self._prefix.keys[layer])
        own = _Span(query, own_states[0], future.repeat(shape[2], 1))
        queries = [query] * len(self._groups) if self._together else torch.split(query, self._sizes)
        sources = [
            _Span(part, group.keys[layer], group.padding)
            for part, group in zip(queries, self._groups, strict=True)
        ]

        source_lse = torch.cat([source.lse for source in sources])
        if self._together:
            total = torch.cat([prefix.lse, own.lse, source_lse]).logsumexp(0, keepdim=True)
        else:
            total = prefix.lse.logaddexp(own.lse).logaddexp(source_lse)
        mass = (source_lse - total).exp().view(-1, *shape[1:4])
        ratio = log_ratio(source_lse, prefix.lse).view(-1, *shape[1:4])
        if layer == self._depth - 1:
            return mass, ratio, query.new_empty(*shape[:4], 0)

        read = prefix.read(self._prefix.values[layer], total) + own.read(own_states[1], total)
        totals = [total] * len(self._groups) if self._together else torch.split(total, self._sizes)
        from_sources = [
            source.read(group.values[layer], part)
            for source, part, group in zip(sources, totals, self._groups, strict=True)
        ]
        if self._together:
            read = read + sum(part.sum(0, keepdim=True) for part in from_sources)
        else:
            read = read + torch.cat(from_sources)
        return mass, ratio, read.view(shape)

    def _collect(self, mass: Tensor, ratio: Tensor) -> None:
        mass, ratio = (values[..., self._target].mean(-1).flatten(1).T for values in (mass, ratio))
        for part, *features in zip(
            self.parts,
            torch.split(mass, self._sizes, 1),
            torch.split(ratio, self._sizes, 1),
            strict=True,
        ):
            part.append((features[0], features[1]))


class _Span:
    """Attention to a span of keys, before it is known what else there is to attend to.

    Args:
        query: [C, Hkv, R * Q, D] float32, scaled.
        keys: [Hkv, W, D] or [G, Hkv, W, D].
        hidden: Bool, broadcast against the logits, True where a row may not look.
    """

    def __init__(self, query: Tensor, keys: Tensor, hidden: Tensor | None = None) -> None:
        logits = query @ keys.float().transpose(-1, -2)
        if hidden is not None:
            logits.masked_fill_(hidden, -torch.inf)
        # The bound keeps a source without tokens from giving NaN; no logit comes near it.
        self._peak = logits.amax(-1, keepdim=True).clamp(min=_LEAST_PEAK)
        self._weights = logits.sub_(self._peak).exp_()
        self.lse = (self._weights.sum(-1, keepdim=True).log() + self._peak).squeeze(-1)

    def read(self, values: Tensor, total: Tensor) -> Tensor:
        """Return the span's part of the attention output, [C or G, Hkv, R * Q, D] float32.

        Args:
            values: As the keys.
            total: Log-sum-exp over everything attended to, broadcast against `lse`.
        """
        return (self._weights @ values.float()) * (self._peak - total[..., None]).exp()
