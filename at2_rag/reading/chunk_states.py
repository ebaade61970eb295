"""Chunk states: what the scoring model keeps of a source that it read alone after the prefix.

Independent reading has three steps. The prefix is read once per scorer. Each source is read
after it, blind to all others, and leaves its *chunk state*: keys and values of the layers in use.
Then only the question's tokens run over the states, see `question_pass`.

Sources are read in a fixed order (by length, then by content), never the caller's, so that the
caller's order can't change a score. Many sources share one forward pass without padding: they are
packed one after another, and only the attention keeps them apart.

A store of states is any `MutableMapping` from a key (a string) to a `ChunkState`. A pruner's
question reads one layer of them at a time, see `independent`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from at2_rag.reading.attention import AttentionCall, PassComplete
from at2_rag.reading.scoring_model import ScoringModel

PACK_TOKENS = 2048  # most tokens of one forward pass over sources, unless a single one is longer
_MOST_KEPT = 1e6  # far above what models keep, far below what would overflow in a reading
GROUP_TOKENS = 8192  # most (padded) tokens of sources that the question reads in one matrix product


@dataclass(frozen=True, slots=True, eq=False)
class ChunkState:
    """Keys and values of one source (or of the prefix) of W tokens, in the model's dtype.

    In the last layer in use only keys are needed, unless the model's output is wanted too.
    """

    keys: Tensor  # [L, Hkv, W, D]
    values: Tensor  # [L - 1, Hkv, W, D] or [L, Hkv, W, D], see `encode_prefix`

    @property
    def is_usable(self) -> bool:
        """Whether all numbers are ones that a model may have made; a forged file has any."""
        return are_plausible(self.keys) and are_plausible(self.values)

    def first_layers(self, depth: int) -> ChunkState:
        """Return the state as a scoring model cut to `depth` layers has it (a view)."""
        return ChunkState(self.keys[:depth], self.values[: depth - 1])

    def in_main_memory(self) -> ChunkState:
        """Return the state in main memory, where it outlives its use on an accelerator."""
        return ChunkState(self.keys.cpu(), self.values.cpu())

    def page_locked(self) -> ChunkState:
        """Return a state in main memory from where CUDA copies it without waiting."""
        return ChunkState(self.keys.pin_memory(), self.values.pin_memory())

    @property
    def tokens(self) -> int:
        """Number of tokens of the source."""
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Size of the state in memory."""
        return self.keys.nbytes + self.values.nbytes


def are_plausible(numbers: Tensor) -> bool:
    """Return whether all numbers are floats within a million of 0; NaN is not."""
    if not numbers.is_floating_point():
        return False
    least, most = map(float, torch.aminmax(numbers)) if numbers.numel() else (0.0, 0.0)
    return -_MOST_KEPT < least and most < _MOST_KEPT  # NaN isn't


ChunkStateStore = MutableMapping[str, ChunkState]


@runtime_checkable
class RoundingStore(Protocol):
    """A store that may return other numbers than were put in."""

    def as_kept(self, state: ChunkState) -> ChunkState:
        """Return a state as the store would give it back."""


def encode_prefix(model: ScoringModel, *, last_values: bool = False) -> ChunkState:
    """Read the prefix.

    With `last_values` it, and all sources read after it, keep values in the last layer too, so that
    what reads them can go on to the model's output.
    """
    return _encode_pack(model, None, [model.prompts.prefix_ids], last_values=last_values)[0]


def encode_sources(
    model: ScoringModel,
    prefix: ChunkState,
    sources: Sequence[tuple[int, ...]],
    *,
    store: ChunkStateStore | None = None,
    scope: str = "",
) -> dict[tuple[int, ...], ChunkState]:
    """Return the state of each source, by its token ids, read alone after the prefix.

    States are looked up and left in `store`, under keys of the ids and of `scope`: everything else
    that decides a state, see `states_scope`.
    """
    states: dict[tuple[int, ...], ChunkState] = {}
    missing = sorted((ids for ids in sources if ids), key=canonical)
    if store is not None:
        start = scope.encode() + b"\0"
        keys = {
            ids: hashlib.sha256(start + array("I", ids).tobytes()).hexdigest() for ids in missing
        }
        for ids, key in keys.items():
            state = store.get(key)
            if state is not None and _fits(state, prefix, len(ids)):
                states[ids] = state
        missing = [ids for ids in missing if ids not in states]
    if () in sources:
        states[()] = ChunkState(prefix.keys[:, :, :0], prefix.values[:, :, :0])
    for pack in packs(missing):
        for ids, state in zip(pack, _encode_pack(model, prefix, pack), strict=True):
            if store is not None:
                store[keys[ids]] = state
                if isinstance(store, RoundingStore):  # the same from the first call on
                    state = store.as_kept(state)
            states[ids] = state
    return states


def _fits(state: ChunkState, prefix: ChunkState, tokens: int) -> bool:
    """Return whether a state from a store has the shapes and dtype of one that is made now."""
    return all(
        kept.shape == (*like.shape[:2], tokens, like.shape[3]) and kept.dtype == like.dtype
        for kept, like in ((state.keys, prefix.keys), (state.values, prefix.values))
    )


def canonical(ids: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return the sort key of the order in which sources are read."""
    return len(ids), ids


def packs(sources: Sequence[tuple[int, ...]]) -> list[Sequence[tuple[int, ...]]]:
    """Split sources into those that share a forward pass, in the order given."""
    return [sources[run] for run in runs_of(list(map(len, sources)), PACK_TOKENS)]


def runs_of(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Split into runs of a sum of at most `most`, as long as can be; a larger size stands alone."""
    start = total = 0
    for index, size in enumerate(sizes):
        if start < index and total + size > most:
            yield slice(start, index)
            start, total = index, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))


def length_runs(lengths: Sequence[int]) -> Iterator[range]:
    """Split ascending lengths into runs whose padding to the longest stays small."""
    start = 0
    for stop in range(1, len(lengths) + 1):
        if (
            stop == len(lengths)
            or lengths[stop] > 1.25 * lengths[start] + 8
            or (stop + 1 - start) * lengths[stop] > GROUP_TOKENS
        ):
            yield range(start, stop)
            start = stop


def _encode_pack(
    model: ScoringModel,
    prefix: ChunkState | None,
    pack: Sequence[tuple[int, ...]],
    *,
    last_values: bool = False,
) -> list[ChunkState]:
    """Read sources in one forward pass and return their states."""
    if prefix is not None:
        last_values = len(prefix.values) == len(prefix.keys)
    lengths = list(map(len, pack))
    states: list[ChunkState] = []

    def keep(call: AttentionCall) -> None:
        key, value = call.key[0], call.value[0]  # [Hkv, N, D]
        if not states:
            heads, _, dim = key.shape
            layers = model.depth, model.depth - (not last_values)
            states.extend(
                ChunkState(*(key.new_empty(count, heads, length, dim) for count in layers))
                for length in lengths
            )
        split = torch.split(key, lengths, dim=1), torch.split(value, lengths, dim=1)
        for state, keys, values in zip(states, *split, strict=True):
            state.keys[call.layer] = keys
            if call.layer < len(state.values):
                state.values[call.layer] = values

    read_pack(model, prefix, pack, keep)
    return states


def read_pack(
    model: ScoringModel,
    prefix: ChunkState | None,
    pack: Sequence[tuple[int, ...]],
    keep: Callable[[AttentionCall], None],
    *,
    starts: Sequence[int] | None = None,
) -> None:
    """Read sources in one forward pass, each after the prefix and blind to the others.

    `keep` is called in each layer with queries, keys and values of the sources one after another.
    `starts` are the positions of their first tokens; None for that after the prefix. Without a
    prefix the pack is the prefix itself.
    """
    device = model.device
    if starts is None:
        starts = [prefix.tokens if prefix else 0] * len(pack)
    positions = torch.cat(
        [torch.arange(start, start + len(ids)) for start, ids in zip(starts, pack, strict=True)]
    )
    ids = torch.tensor([token for source in pack for token in source], device=device)
    reading = _PackReading(prefix, list(map(len, pack)), model, keep)
    model.run_packed(ids, positions.to(device), reading)


class _PackReading:
    """Packed sources, each attending to the prefix and causally to itself."""

    def __init__(
        self,
        prefix: ChunkState | None,
        lengths: Sequence[int],
        model: ScoringModel,
        keep: Callable[[AttentionCall], None],
    ) -> None:
        self._prefix = prefix
        self._depth = model.depth
        self._keep = keep
        past = prefix.tokens if prefix else 0
        self._blocks = []
        start = 0
        for run in length_runs(lengths):
            sizes = torch.tensor(lengths[run.start : run.stop])
            width = int(sizes.max())
            starts = start + sizes.cumsum(0) - sizes
            start += int(sizes.sum())
            indices = (starts[:, None] + torch.arange(width)).clamp(max=sum(lengths) - 1)
            real = (torch.arange(width) < sizes[:, None]).flatten().nonzero().flatten()
            mask = torch.ones(width, past + width, dtype=torch.bool).tril(past)
            self._blocks.append(
                (indices.to(model.device), real.to(model.device), mask.to(model.device))
            )

    def attend(self, call: AttentionCall) -> Tensor:
        self._keep(call)
        if call.layer == self._depth - 1:
            raise PassComplete
        repeats = call.query.shape[1] // call.key.shape[1]
        # [1, H, N, D] -> [N, H, D]
        query, key, value = (one[0].transpose(0, 1) for one in (call.query, call.key, call.value))
        output = torch.empty_like(query)  # [N, H, D]
        for indices, real, mask in self._blocks:
            # [N, Hkv, D] -> [G, Hkv, W, D]
            keys, values = (_side_by_side(one, indices).transpose(1, 2) for one in (key, value))
            if self._prefix is not None:
                shape = (len(indices), -1, -1, -1)
                past = self._prefix.keys[call.layer], self._prefix.values[call.layer]
                keys = torch.cat([past[0].expand(shape), keys], dim=2)
                values = torch.cat([past[1].expand(shape), values], dim=2)
            read = scaled_dot_product_attention(
                _side_by_side(query, indices).transpose(1, 2),
                keys.repeat_interleave(repeats, dim=1),
                values.repeat_interleave(repeats, dim=1),
                attn_mask=mask,
                scale=call.scaling,
            )
            read = read.transpose(1, 2).flatten(0, 1).index_select(0, real)
            output.index_copy_(0, indices.flatten()[real], read)
        return output[None]


def _side_by_side(tokens: Tensor, indices: Tensor) -> Tensor:
    """Return the tokens [N, H, D] at indices [G, W], as [G, W, H, D]."""
    return tokens.index_select(0, indices.flatten()).view(*indices.shape, *tokens.shape[1:])
