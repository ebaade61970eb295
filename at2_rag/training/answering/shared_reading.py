"""Reads many prompts with their answers in full, what they begin with alike only once.

A causal model's states of a prompt's beginning don't depend on what follows. Prompts with chunks
removed begin alike wherever they keep the same first chunks, so the prompts of an item form a
tree: a branch is a run of tokens that the same prompts share, and each prompt ends in the part that
it has alone, answer included. A branch is run once, over the keys and values of those on its way
from the root, and its own are kept until the last branch below it is done.

Several branches share one forward pass. They are packed one after another, and only the attention
keeps them apart, as in `chunk_states`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from at2_rag.errors import InputError, UnsupportedModelError
from at2_rag.prompt.layout import AnswerLayout
from at2_rag.reading.attention import AttentionCall, PassComplete
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.answering.logit_probabilities import token_logit_probabilities

PASS_TOKENS = 512
"""Most tokens of one forward pass over branches (one longer branch has a pass of its own)."""

BLOCK_ROWS = 256
"""Most tokens of a branch that attend at once, each such block to nothing after its end."""


def read_shared(
    model: AnswerModel, layouts: Sequence[AnswerLayout], *, workers: int = 1
) -> list[Tensor]:
    """Read prompts with their answers in full, shared beginnings once.

    The same as `AnswerModel.read` up to rounding. Which tokens share a forward pass depends on all
    the layouts and on `workers`, and so do the last bits. A model that isn't verified for packed
    reading (see `ScoringModel.check_independent`) reads every prompt by itself.

    Keys and values in memory are at most those of about `PASS_TOKENS` tokens a branching on the
    way from the root, for each worker.

    Args:
        model: The model that answers.
        layouts: Joint prompts with answers.
        workers: Threads, at least 1, that each read prompts of their own.

    Returns:
        For each the logit-probability of every answer token, [A] float32.

    Raises:
        InputError: If there are no workers.
        PromptTooLongError: If a prompt exceeds the model's window.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; pass at least 1")
    if not layouts:
        return []
    model.check_window(len(layout.input_ids) for layout in layouts)
    rows = sorted(map(_Row.of, range(len(layouts)), layouts), key=lambda row: row.ids)
    try:
        model.scoring_model.check_independent()
        packed = True
    except UnsupportedModelError:
        packed = False

    def read(share: Sequence[_Row]) -> list[Tensor]:
        if packed:
            return _read_tree(model, share)
        return model.read([layouts[row.index] for row in share])

    shares = _shares(rows, workers)
    results: dict[int, Tensor] = {}
    with ThreadPoolExecutor(workers) as executor:
        for share, found in zip(shares, executor.map(read, shares), strict=True):
            results |= zip((row.index for row in share), found, strict=True)
    return [results[index] for index in range(len(layouts))]


@dataclass(frozen=True, slots=True)
class _Row:
    """A prompt with its answer.

    Attributes:
        index: Its place among the layouts.
        ids: Token ids, without the last one, which predicts nothing that is asked for.
        answer: Token ids of the answer, predicted by the last of `ids`, as many as they are.
    """

    index: int
    ids: tuple[int, ...]
    answer: tuple[int, ...]

    @classmethod
    def of(cls, index: int, layout: AnswerLayout) -> _Row:
        return cls(index, layout.input_ids[:-1], layout.answer_ids)

    def common(self, other: _Row) -> int:
        """Return with how many tokens both begin, without those that predict an answer."""
        limit = min(len(row.ids) - len(row.answer) for row in (self, other))
        pairs = zip(self.ids[:limit], other.ids[:limit], strict=True)
        return next((place for place, (one, two) in enumerate(pairs) if one != two), limit)


def _common(rows: Sequence[_Row]) -> list[int]:
    """Return for each of the sorted rows how much it shares with the one before it."""
    return [0, *(row.common(before) for before, row in pairwise(rows))]


def _shares(rows: Sequence[_Row], workers: int) -> list[Sequence[_Row]]:
    """Split sorted rows into as many runs as there are workers, with about as much to read."""
    costs = [len(row.ids) - common for row, common in zip(rows, _common(rows), strict=True)]
    shares: list[list[_Row]] = [[] for _ in range(workers)]
    done = 0
    for row, cost in zip(rows, costs, strict=True):
        # Half of a row decides on which side of a border it is.
        shares[int((done + cost / 2) * workers / sum(costs))].append(row)
        done += cost
    return [share for share in shares if share]


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Keys and values of one branch, a layer after another, [Hkv, W, D] each."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """Tokens `start` to `end` of the rows `first` to `last`, exclusive, that share them.

    A branch of a single row is that row's end, and its answer is read there.
    """

    first: int
    last: int
    start: int
    end: int
    way: tuple[_State, ...]

    @property
    def tokens(self) -> int:
        return self.end - self.start

    @property
    def is_end(self) -> bool:
        return self.last - self.first == 1


class _Tree:
    """The branches of sorted rows."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self.rows = rows
        self._common = _common(rows)

    def root(self) -> list[_Branch]:
        """Return the branch of all rows, or those below it if they begin with different tokens."""
        root = self._branch(0, len(self.rows), 0, ())
        return [root] if root.tokens else self.below(root, ())

    def below(self, branch: _Branch, way: tuple[_State, ...]) -> list[_Branch]:
        """Return the branches that a branch of several rows splits into."""
        inner = range(branch.first + 1, branch.last)
        borders = [row for row in inner if self._common[row] == branch.end]
        return [
            self._branch(first, last, branch.end, way)
            for first, last in pairwise([branch.first, *borders, branch.last])
        ]

    def _branch(self, first: int, last: int, start: int, way: tuple[_State, ...]) -> _Branch:
        end = min(self._common[first + 1 : last], default=len(self.rows[first].ids))
        return _Branch(first, last, start, end, way)


def _read_tree(model: AnswerModel, rows: Sequence[_Row]) -> list[Tensor]:
    """Return each sorted row's logit-probabilities of its answer's tokens, [A] float32."""
    tree = _Tree(rows)
    results: dict[int, Tensor] = {}
    # The last in are the first out: down the tree before across, so that few states wait.
    waiting = tree.root()[::-1]
    while waiting:
        pack = [waiting.pop()]
        size = pack[0].tokens
        while waiting and size + waiting[-1].tokens <= PASS_TOKENS:
            pack.append(waiting.pop())
            size += pack[-1].tokens
        states, found = _read_pack(model, rows, pack)
        results |= found
        below = [
            branch
            for above, state in zip(pack, states, strict=True)
            if state is not None
            for branch in tree.below(above, (*above.way, state))
        ]
        waiting += below[::-1]
    return [results[place] for place in range(len(rows))]


def _read_pack(
    model: AnswerModel, rows: Sequence[_Row], pack: Sequence[_Branch]
) -> tuple[list[_State | None], dict[int, Tensor]]:
    """Run one pass; return the states of branches that go on, and what was read of other rows."""
    device = model.scoring_model.device
    ids = [token for own in pack for token in rows[own.first].ids[own.start : own.end]]
    positions = [place for own in pack for place in range(own.start, own.end)]
    input_ids, position_ids = (torch.tensor(row, device=device) for row in (ids, positions))
    reading = _BranchReading(pack, model.scoring_model)
    ends = [own.first for own in pack if own.is_end]
    if not ends:
        model.scoring_model.run_packed(input_ids, position_ids, reading)
        return reading.states, {}
    places: list[int] = []
    stop = 0
    for own in pack:
        stop += own.tokens
        if own.is_end:
            places += range(stop - len(rows[own.first].answer), stop)
    logits = model.run_packed(
        input_ids, position_ids, reading, rows=torch.tensor(places, device=device)
    )
    answers = [rows[row].answer for row in ends]
    tokens = torch.tensor([token for answer in answers for token in answer], device=device)
    lengths = [len(answer) for answer in answers]
    found = torch.split(token_logit_probabilities(logits, tokens), lengths)
    return reading.states, dict(zip(ends, found, strict=True))


class _BranchReading:
    """Packed branches, each attending to its way from the root and causally to itself.

    Args:
        pack: The branches.
        model: Whose layers they go through.
    """

    def __init__(self, pack: Sequence[_Branch], model: ScoringModel) -> None:
        self.states = [None if own.is_end else _State() for own in pack]
        self._pack = pack
        self._end = None if any(own.is_end for own in pack) else model.depth - 1
        shape = (BLOCK_ROWS, BLOCK_ROWS)
        hidden = torch.full(shape, -torch.inf, dtype=model.dtype, device=model.device)
        self._hidden = hidden.triu(1)

    def attend(self, call: AttentionCall) -> Tensor:
        read: list[Tensor] = []
        place = 0
        for own, state in zip(self._pack, self.states, strict=True):
            rows = slice(place, place + own.tokens)
            place = rows.stop
            key, value = call.key[0, :, rows], call.value[0, :, rows]
            if state is not None:  # cloned, so that it doesn't hold on to the whole pack's
                state.keys.append(key.clone())
                state.values.append(value.clone())
            if call.layer == self._end:
                continue
            if own.way:
                key = torch.cat([*(above.keys[call.layer] for above in own.way), key], dim=1)
                value = torch.cat([*(above.values[call.layer] for above in own.way), value], dim=1)
            read += self._blocks(call.query[0, :, rows], key, value, own.start, call.scaling)
        if call.layer == self._end:
            raise PassComplete
        return torch.cat(read, dim=1).transpose(0, 1)[None]

    def _blocks(
        self, query: Tensor, key: Tensor, value: Tensor, past: int, scaling: float
    ) -> Iterator[Tensor]:
        """Yield the output of each block of a branch's tokens, [H, rows, D]."""
        (heads, _, dim), key_heads = query.shape, len(key)
        for start, block in zip(count(0, BLOCK_ROWS), torch.split(query, BLOCK_ROWS, dim=1)):
            rows = block.shape[1]
            seen = past + start + rows
            mask = self._hidden.new_zeros(rows, seen)
            mask[:, seen - rows :] = self._hidden[:rows, :rows]
            # Query heads that share a key head become rows of it.
            shared = heads // key_heads
            output = scaled_dot_product_attention(
                block.reshape(1, key_heads, shared * rows, dim),
                key[None, :, :seen],
                value[None, :, :seen],
                attn_mask=mask.repeat(shared, 1),
                scale=scaling,
            )
            yield output.reshape(heads, rows, dim)
