"""Chunk states: what the scoring model keeps of a source that it read alone after the prefix.

Independent reading has three steps. The prefix is read once per scorer. Each source is read
after it, blind to all others, and leaves its *chunk state*: keys and values of the layers in use.
Then only the question's tokens run over the states, see `question_pass`.

Sources are read in a fixed order (by length, then by content), never the caller's, so that the
caller's order can't change a score. Many sources share one forward pass without padding: they are
packed one after another, and only the attention keeps them apart.

A store of states is any `MutableMapping` from a key (a string) to `KeptHeads`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.attention import AttentionCall, PassComplete
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.reading.scoring_model import ScoringModel

PACK_TOKENS = 2048  # most tokens of one forward pass over sources, unless a single one is longer
GROUP_TOKENS = 8192  # most (padded) tokens of sources that the question reads in one matrix product


@dataclass(frozen=True, slots=True, eq=False)
class ChunkState:
    """Keys and values of one source (or of the prefix) of W tokens, in the model's dtype.

    In the last layer in use only keys are needed, unless the model's output is wanted too.
    """

    keys: Tensor  # [L, Hkv, W, D]
    values: Tensor  # [L - 1, Hkv, W, D] or [L, Hkv, W, D], see `encode_prefix`

    def first_layers(self, depth: int) -> ChunkState:
        """Return the state as a scoring model cut to `depth` layers has it (a view)."""
        return ChunkState(self.keys[:depth], self.values[: depth - 1])

    def tokens_of(self, part: SourcePart) -> ChunkState:
        """Return the state of a part of the source (a view)."""
        tokens = slice(part.start, part.end)
        return ChunkState(self.keys[:, :, tokens], self.values[:, :, tokens])

    def kept(self) -> KeptHeads:
        """Return keys, then values, as they are kept."""
        return KeptHeads(torch.cat([self.keys.flatten(0, 1), self.values.flatten(0, 1)]))

    def as_kept(self, kept: KeptHeads) -> ChunkState:
        """Return what was kept of a source, in the layers of this state."""
        vectors = kept.to(self.keys.device).restored()
        by_layer = vectors.view(-1, self.keys.shape[1], *vectors.shape[1:])
        return ChunkState(by_layer[: len(self.keys)], by_layer[len(self.keys) :])

    @property
    def tokens(self) -> int:
        """Number of tokens of the source."""
        return self.keys.shape[2]


StateStore = MutableMapping[str, KeptHeads]


def encode_prefix(model: ScoringModel, *, last_values: bool = False) -> ChunkState:
    """Read the prefix.

    With `last_values` it, and all sources read after it, keep values in the last layer too, so that
    what reads them can go on to the model's output.
    """
    return encode_pack(model, None, [model.prompts.prefix_ids], last_values=last_values)[0]


def encode_sources(
    model: ScoringModel,
    prefix: ChunkState,
    sources: Iterable[tuple[int, ...]],
    *,
    ready: Mapping[tuple[int, ...], ChunkState] = MappingProxyType({}),
    store: StateStore | None = None,
    scope: str = "",
) -> dict[tuple[int, ...], ChunkState]:
    """Return the state of each source, by its token ids, read alone after the prefix.

    States are looked up in `store` and left there, see `Kept`. What it lacks is taken from `ready`
    before it is read.
    """
    heads, dim = prefix.keys.shape[1], prefix.keys.shape[3]
    count = heads * (len(prefix.keys) + len(prefix.values))
    kept = Kept(store, scope, count, dim, prefix.keys.dtype)
    states: dict[tuple[int, ...], ChunkState] = {}
    states[()] = ChunkState(prefix.keys[:, :, :0], prefix.values[:, :, :0])
    missing = []
    for ids in sorted({ids for ids in sources if ids}, key=canonical):
        if (known := kept.get(ids)) is not None:
            states[ids] = prefix.as_kept(known)
        else:
            missing.append(ids)
    fresh = {ids: ready[ids] for ids in missing if ids in ready}
    for pack in packs([ids for ids in missing if ids not in ready]):
        fresh |= zip(pack, encode_pack(model, prefix, pack), strict=True)
    for ids, state in fresh.items():
        if store is not None:
            kept.put(ids, state.kept())
    return states | fresh


class Kept:
    """What a store has of sources: for each the vectors of `heads` heads, of `dim` numbers a token.

    Keys are made of a source's ids and of `scope`: everything else that decides what is kept, see
    `states_scope`. Without a store nothing is kept.
    """

    def __init__(
        self, store: StateStore | None, scope: str, heads: int, dim: int, dtype: torch.dtype
    ) -> None:
        self._store, self._heads, self._dim, self._dtype = store, heads, dim, dtype
        self._scope = scope.encode() + b"\0"

    def get(self, ids: tuple[int, ...]) -> KeptHeads | None:
        """Return what is kept of a source; None if it is nothing, or not what belongs here."""
        kept = None if self._store is None else self._store.get(self._key(ids))
        shape = self._heads, len(ids), self._dim
        return kept if kept and kept.fits(shape, self._dtype) else None

    def put(self, ids: tuple[int, ...], state: KeptHeads) -> None:
        """Keep it."""
        if self._store is not None:
            self._store[self._key(ids)] = state

    def _key(self, ids: tuple[int, ...]) -> str:
        return hashlib.sha256(self._scope + array("I", ids).tobytes()).hexdigest()


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


def encode_pack(
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
