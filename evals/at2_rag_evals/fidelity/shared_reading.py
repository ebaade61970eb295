"""Reads many prompts with their answers in full, but each shared beginning only once.

Prompts with chunks removed begin alike if they keep the same first chunks, so they form a tree: a
branch is a run of tokens that the same prompts share. It is run once, over the keys and values of
the branches above it. Several branches are packed into one forward pass, and only the attention
keeps them apart, as in `chunk_states`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise

import torch
from torch import Tensor

from at2_rag.errors import UnsupportedModelError
from at2_rag.prompt.layout import AnswerLayout
from at2_rag.reading.attention import AttentionCall, PassComplete
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.answering.answer_model import token_logit_probabilities
from at2_rag.training.answering.packed_decoding import attend_over
from at2_rag_evals.fidelity.joint_answers import JointAnswerModel

PASS_TOKENS = 512  # most of one forward pass (a longer branch has a pass of its own)
BLOCK_ROWS = 256  # most tokens of a branch that attend at once


def read_shared(
    model: JointAnswerModel, layouts: Sequence[AnswerLayout], *, workers: int = 1
) -> list[Tensor]:
    """Return for each prompt the logit-probability of every answer token, [A] float32.

    The same as `JointAnswerModel.read` up to rounding. Which tokens share a forward pass depends on
    all the layouts and on `workers`, and so do the last bits. A model that isn't verified for
    packed reading (see `ScoringModel.check_independent`) reads every prompt by itself.

    Keys and values in memory are at most those of about `PASS_TOKENS` tokens a branching on the
    way from the root, for each worker.
    """
    model.check_window(len(layout.input_ids) for layout in layouts)
    rows = [_Row(i, each.input_ids[:-1], each.answer_ids) for i, each in enumerate(layouts)]
    rows.sort(key=lambda row: row.ids)
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
        for share, read_rows in zip(shares, executor.map(read, shares), strict=True):
            results |= zip((row.index for row in share), read_rows, strict=True)
    return [results[index] for index in range(len(layouts))]


@dataclass(frozen=True, slots=True)
class _Row:
    """A prompt with its answer."""

    index: int  # among the layouts
    ids: tuple[int, ...]  # without the last token, which predicts nothing that is wanted
    answer: tuple[int, ...]  # predicted by as many tokens at the end of `ids`

    def common(self, other: _Row) -> int:
        """Return how many tokens both begin with, without those that predict an answer."""
        limit = min(len(row.ids) - len(row.answer) for row in (self, other))
        pairs = zip(self.ids[:limit], other.ids[:limit], strict=True)
        return next((index for index, (one, two) in enumerate(pairs) if one != two), limit)


def _common(rows: Sequence[_Row]) -> list[int]:
    """Return how much each of the sorted rows shares with the one before it."""
    return [0, *(row.common(before) for before, row in pairwise(rows))]


def _shares(rows: Sequence[_Row], workers: int) -> list[list[_Row]]:
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
class _Branch:
    """Tokens `start` to `end` of the rows `first` to `last`, exclusive, that share them.

    A branch of a single row is that row's end, and its answer is read there. Others leave their
    keys and values, [Hkv, W, D] a layer, for the branches below them.
    """

    first: int
    last: int
    start: int
    end: int
    above: tuple[_Branch, ...]  # on the way from the root
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.end - self.start

    @property
    def is_end(self) -> bool:
        return self.last - self.first == 1


def _read_tree(model: JointAnswerModel, rows: Sequence[_Row]) -> list[Tensor]:
    """Return each sorted row's logit-probabilities of its answer's tokens, [A] float32."""
    common = _common(rows)

    def branch(first: int, last: int, start: int, above: tuple[_Branch, ...]) -> _Branch:
        end = min(common[first + 1 : last], default=len(rows[first].ids))
        return _Branch(first, last, start, end, above)

    def split(parent: _Branch) -> list[_Branch]:
        """Return the branches that a branch of several rows splits into."""
        above = (*parent.above, parent) if parent.tokens else ()
        inner = range(parent.first + 1, parent.last)
        borders = [row for row in inner if common[row] == parent.end]
        pairs = pairwise([parent.first, *borders, parent.last])
        return [branch(first, last, parent.end, above) for first, last in pairs]

    root = branch(0, len(rows), 0, ())
    results: dict[int, Tensor] = {}
    # The last in are the first out: down the tree before across, so that few states wait.
    waiting = [root] if root.tokens else split(root)[::-1]
    while waiting:
        pack = [waiting.pop()]
        size = pack[0].tokens
        while waiting and size + waiting[-1].tokens <= PASS_TOKENS:
            pack.append(waiting.pop())
            size += pack[-1].tokens
        results |= _read_pack(model, rows, pack)
        waiting += [part for parent in pack if not parent.is_end for part in split(parent)][::-1]
    return [results[index] for index in range(len(rows))]


def _read_pack(
    model: JointAnswerModel, rows: Sequence[_Row], pack: Sequence[_Branch]
) -> dict[int, Tensor]:
    """Run one pass; return what was read of the rows that end in it."""
    device = model.scoring_model.device
    ids = [token for branch in pack for token in rows[branch.first].ids[branch.start : branch.end]]
    positions = [position for branch in pack for position in range(branch.start, branch.end)]
    input_ids, position_ids = (torch.tensor(row, device=device) for row in (ids, positions))
    reading = _BranchReading(pack, model.scoring_model)
    ends = [branch.first for branch in pack if branch.is_end]
    if not ends:
        model.scoring_model.run_packed(input_ids, position_ids, reading)
        return {}
    predicting: list[int] = []
    stop = 0
    for branch in pack:
        stop += branch.tokens
        if branch.is_end:
            predicting += range(stop - len(rows[branch.first].answer), stop)
    logits = model.run_packed(
        input_ids, position_ids, reading, rows=torch.tensor(predicting, device=device)
    )
    answers = [rows[row].answer for row in ends]
    tokens = torch.tensor([token for answer in answers for token in answer], device=device)
    read = torch.split(token_logit_probabilities(logits, tokens), list(map(len, answers)))
    return dict(zip(ends, read, strict=True))


class _BranchReading:
    """Packed branches, each attending to its way from the root and causally to itself."""

    def __init__(self, pack: Sequence[_Branch], model: ScoringModel) -> None:
        self._pack = pack
        # Where no row ends, nothing is wanted after the last layer's keys and values.
        self._end = None if any(branch.is_end for branch in pack) else model.depth - 1
        shape = (BLOCK_ROWS, BLOCK_ROWS)
        hidden = torch.full(shape, -torch.inf, dtype=model.dtype, device=model.device)
        self._hidden = hidden.triu(1)

    def attend(self, call: AttentionCall) -> Tensor:
        outputs: list[Tensor] = []
        start = 0
        for branch in self._pack:
            rows = slice(start, start + branch.tokens)
            start = rows.stop
            key, value = call.key[0, :, rows], call.value[0, :, rows]
            if not branch.is_end:  # cloned, so that it doesn't hold on to the whole pack's
                branch.keys.append(key.clone())
                branch.values.append(value.clone())
            if call.layer == self._end:
                continue
            if branch.above:
                key = torch.cat([*(one.keys[call.layer] for one in branch.above), key], dim=1)
                value = torch.cat([*(one.values[call.layer] for one in branch.above), value], dim=1)
            query = call.query[0, :, rows]
            outputs += self._blocks(query, key, value, branch.start, call.scaling)
        if call.layer == self._end:
            raise PassComplete
        return torch.cat(outputs, dim=1).transpose(0, 1)[None]

    def _blocks(
        self, query: Tensor, key: Tensor, value: Tensor, past: int, scaling: float
    ) -> Iterator[Tensor]:
        """Yield the output of each block of a branch's tokens, [H, rows, D]."""
        for start, block in zip(count(0, BLOCK_ROWS), torch.split(query, BLOCK_ROWS, dim=1)):
            rows = block.shape[1]
            seen = past + start + rows
            mask = self._hidden.new_zeros(rows, seen)
            mask[:, seen - rows :] = self._hidden[:rows, :rows]
            yield attend_over(block, key[:, :seen], value[:, :seen], mask, scaling)
