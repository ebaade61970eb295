"""Chunk states: what the scoring model keeps of a source that it read alone after the prefix.

Independent reading has three steps. The prefix is read once per process. Each source is read
after it, blind to all others, and leaves its *chunk state*: keys and values of the layers in use.
Then only the question's tokens run over the states, see `question_pass`.

Sources are read in an order of their own (by length, then by content), never the caller's, so the
caller's order can't change a score. Many sources share one forward pass without padding: they are
packed one after another, and only the attention keeps them apart.

A store of states is any `MutableMapping` from a key (a string) to a `ChunkState`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from at2_rag.attention import AttentionCall, PassComplete
from at2_rag.prompt import PromptLayout
from at2_rag.scoring_model import ScoringModel

PACK_TOKENS = 2048
"""Most tokens of one forward pass over sources (one longer source has a pass of its own)."""

GROUP_TOKENS = 8192
"""Most (padded) tokens of sources whose states the question reads in one matrix product."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkState:
    """Keys and values of one source (or of the prefix).

    Attributes:
        keys: [L, Hkv, W, D] in the model's dtype, W the source's tokens.
        values: [L - 1, Hkv, W, D]; in the last layer in use only keys are needed. [L, Hkv, W, D]
            where the question's own output is wanted too, see `encode_prefix`.
    """

    keys: Tensor
    values: Tensor

    def first_layers(self, depth: int) -> ChunkState:
        """Return the state as a scoring model cut to `depth` layers has it (a view)."""
        return ChunkState(self.keys[:depth], self.values[: depth - 1])

    def part(self, start: int, end: int) -> ChunkState:
        """Return the state of the source's tokens from `start` to `end`, exclusive (a view)."""
        return ChunkState(self.keys[:, :, start:end], self.values[:, :, start:end])

    @property
    def tokens(self) -> int:
        """Number of tokens of the source."""
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Size of the state in memory."""
        return self.keys.nbytes + self.values.nbytes


ChunkStateStore = MutableMapping[str, ChunkState]


@dataclass(frozen=True, slots=True)
class SourcePart:
    """Tokens of a source that the question reads as a source of their own.

    They were read in their source, after its earlier tokens; what they are to the question is
    counted apart from the rest of it.

    Attributes:
        source: The source's place in its layout.
        start: The part's first token within the source.
        end: The end of it, exclusive; an empty part is never attended to.
    """

    source: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class ReadyStates:
    """The prefix's state and those of all sources of one layout, ready for questions.

    Attributes:
        prefix: State of the prefix.
        groups: States of sources of similar length, padded to the longest of their group.
        firsts: For each of the S sources the first one that equals it, perhaps itself.
        longest: Tokens of the longest source; where parts are read, of the longest whole one.
    """

    prefix: ChunkState
    groups: tuple[StateGroup, ...]
    firsts: tuple[int, ...]
    longest: int

    @property
    def nbytes(self) -> int:
        """Size of the sources' states in memory, padding included."""
        return sum(group.keys.nbytes + group.values.nbytes for group in self.groups)


@dataclass(frozen=True, slots=True, eq=False)
class StateGroup:
    """States of G sources, padded to W tokens.

    Attributes:
        members: [G] int64, place of each source in its layout.
        lengths: [G] int64, tokens of each source; of a part, those of its whole source, after
            which the question stands.
        keys: [L, G, Hkv, W, D].
        values: [L - 1, G, Hkv, W, D], or [L, ...] as in `ChunkState`.
        padding: [G, 1, 1, W] bool, True on padding.
    """

    members: Tensor
    lengths: Tensor
    keys: Tensor
    values: Tensor
    padding: Tensor


def encode_prefix(model: ScoringModel, *, last_values: bool = False) -> ChunkState:
    """Read the prefix.

    Args:
        model: The scoring model.
        last_values: Keep values in the last layer too, for the prefix and for all sources that
            are read after it, so that what reads them can go on to the model's output.
    """
    return _encode_pack(model, None, [model.prompts.prefix_ids], last_values=last_values)[0]


def ready_states(
    model: ScoringModel,
    prefix: ChunkState,
    layout: PromptLayout,
    *,
    store: ChunkStateStore | None = None,
    scope: str = "",
) -> ReadyStates:
    """Return the states of a layout's sources, read now or taken from a store.

    Args:
        model: The scoring model.
        prefix: The prefix's state, see `encode_prefix`.
        layout: An independent layout with at least one source.
        store: Where states are looked up and left; None for nowhere.
        scope: Goes into the store's keys: everything besides the ids that decides a state (model
            fingerprint, template hash, depth, dtype).
    """
    sources = list(dict.fromkeys(layout.source_ids))
    states = encode_sources(model, prefix, sources, store=store, scope=scope)
    return gather_states(prefix, states, layout, emptied=True)


def gather_states(
    prefix: ChunkState,
    states: dict[tuple[int, ...], ChunkState],
    layout: PromptLayout,
    *,
    parts: Sequence[SourcePart] | None = None,
    emptied: bool = False,
) -> ReadyStates:
    """Bring a layout's states together for questions.

    Args:
        prefix: The prefix's state.
        states: The state of each of the layout's sources.
        layout: An independent layout with at least one source.
        parts: What to read in place of the layout's sources, at least one; tokens in no part are
            hidden from the question. None for the sources, whole.
        emptied: Take each state out of `states` once it has been copied for the last time, so that
            not all are in memory twice.
    """
    sources = layout.source_ids
    if parts is None:
        parts = [SourcePart(index, 0, len(ids)) for index, ids in enumerate(sources)]
    keys = [(part.end - part.start, sources[part.source], part.start) for part in parts]
    order = sorted(range(len(parts)), key=keys.__getitem__)
    last = {sources[parts[index].source]: place for place, index in enumerate(order)}
    groups = []
    for run in _runs([keys[index][0] for index in order]):
        members = [order[place] for place in run]
        cut = [(states[sources[parts[i].source]], parts[i]) for i in members]
        groups.append(
            _group(
                [state.part(part.start, part.end) for state, part in cut],
                torch.tensor(members, device=prefix.keys.device),
                torch.tensor([state.tokens for state, _ in cut], device=prefix.keys.device),
            )
        )
        del cut
        for ids in {sources[parts[index].source] for index in members} if emptied else ():
            if last[ids] < run.stop:
                del states[ids]
    first: dict[tuple[int, tuple[int, ...], int], int] = {}
    firsts = tuple(first.setdefault(key, index) for index, key in enumerate(keys))
    return ReadyStates(prefix, tuple(groups), firsts, max(map(len, sources)))


def encode_sources(
    model: ScoringModel,
    prefix: ChunkState,
    sources: Sequence[tuple[int, ...]],
    *,
    store: ChunkStateStore | None = None,
    scope: str = "",
) -> dict[tuple[int, ...], ChunkState]:
    """Return the state of each of the given sources, read alone after the prefix.

    Args:
        model: The scoring model.
        prefix: The prefix's state.
        sources: Token ids of different sources, none empty.
        store: As in `ready_states`.
        scope: As in `ready_states`.
    """
    states: dict[tuple[int, ...], ChunkState] = {}
    missing = sorted(sources, key=canonical)
    if store is not None:
        keys = {ids: _store_key(scope, ids) for ids in missing}
        states = {ids: state for ids, key in keys.items() if (state := store.get(key)) is not None}
        missing = [ids for ids in missing if ids not in states]
    for pack in packs(missing):
        states.update(zip(pack, _encode_pack(model, prefix, pack), strict=True))
    if store is not None:
        for ids in missing:
            store[keys[ids]] = states[ids]
    return states


def canonical(ids: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return the sort key of the order in which sources are read."""
    return len(ids), ids


def _store_key(scope: str, ids: tuple[int, ...]) -> str:
    return hashlib.sha256(scope.encode() + b"\0" + array("I", ids).tobytes()).hexdigest()


def packs(sources: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Split sources into those that share a forward pass, in the order given."""
    pack: list[tuple[int, ...]] = []
    size = 0
    for ids in sources:
        if pack and size + len(ids) > PACK_TOKENS:
            yield pack
            pack, size = [], 0
        pack.append(ids)
        size += len(ids)
    if pack:
        yield pack


def _runs(lengths: Sequence[int]) -> Iterator[range]:
    """Split ascending lengths into runs whose padding to the longest stays small."""
    start = 0
    for stop in range(1, len(lengths) + 1):
        ends = stop == len(lengths)
        if (
            ends
            or lengths[stop] > 1.25 * lengths[start] + 8
            or (stop + 1 - start) * lengths[stop] > GROUP_TOKENS
        ):
            yield range(start, stop)
            start = stop


def _group(states: Sequence[ChunkState], members: Tensor, lengths: Tensor) -> StateGroup:
    first, width = states[0], max(1, *(state.tokens for state in states))
    layers, heads, _, dim = first.keys.shape
    # A store may hand out states that are elsewhere than the model; members are where it is.
    shape, device = (len(states), heads, width, dim), members.device
    keys = first.keys.new_zeros(layers, *shape, device=device)
    values = first.keys.new_zeros(first.values.shape[0], *shape, device=device)
    for index, state in enumerate(states):
        keys[:, index, :, : state.tokens] = state.keys
        values[:, index, :, : state.tokens] = state.values
    tokens = torch.tensor([state.tokens for state in states], device=device)
    padding = torch.arange(width, device=device) >= tokens[:, None]
    return StateGroup(members, lengths, keys, values, padding[:, None, None])


def _encode_pack(
    model: ScoringModel,
    prefix: ChunkState | None,
    pack: Sequence[tuple[int, ...]],
    *,
    last_values: bool = False,
) -> list[ChunkState]:
    device = model.device
    lengths = [len(ids) for ids in pack]
    past = prefix.tokens if prefix else 0
    positions = torch.cat([torch.arange(past, past + length) for length in lengths])
    if prefix is not None:
        last_values = len(prefix.values) == len(prefix.keys)
    reading = _EncodeReading(prefix, lengths, model, last_values=last_values)
    ids = torch.tensor([token for source in pack for token in source], device=device)
    model.run_packed(ids, positions.to(device), reading)
    return reading.states


class _EncodeReading:
    """Packed sources, each attending to the prefix and causally to itself.

    Keys and values are copied into the `states` of the sources layer by layer, so that they are in
    memory once.
    """

    def __init__(
        self,
        prefix: ChunkState | None,
        lengths: Sequence[int],
        model: ScoringModel,
        *,
        last_values: bool,
    ) -> None:
        self.states: list[ChunkState] = []
        self._lengths = list(lengths)
        self._prefix = prefix
        self._depth = model.depth
        self._last_values = last_values
        past = prefix.tokens if prefix else 0
        self._blocks = []
        starts = torch.tensor([0, *lengths]).cumsum(0)
        for run in _runs(lengths):
            width = max(lengths[i] for i in run)
            places = starts[run.start : run.stop, None] + torch.arange(width)
            real = torch.arange(width) < torch.tensor(lengths[run.start : run.stop])[:, None]
            places = places.clamp(max=int(starts[-1]) - 1).to(model.device)
            mask = torch.ones(width, past + width, dtype=torch.bool).tril(past)
            self._blocks.append((places, real.to(model.device), mask.to(model.device)))

    def attend(self, call: AttentionCall) -> Tensor:
        last = call.layer == self._depth - 1
        self._keep(call)
        if last:
            raise PassComplete
        repeats = call.query.shape[1] // call.key.shape[1]
        query = call.query[0].transpose(0, 1)  # [N, H, D]
        key, value = call.key[0].transpose(0, 1), call.value[0].transpose(0, 1)
        output = torch.empty_like(query)
        for places, real, mask in self._blocks:
            keys, values = key[places].transpose(1, 2), value[places].transpose(1, 2)
            if self._prefix is not None:
                shape = (len(places), -1, -1, -1)
                past = self._prefix.keys[call.layer], self._prefix.values[call.layer]
                keys = torch.cat([past[0].expand(shape), keys], dim=2)
                values = torch.cat([past[1].expand(shape), values], dim=2)
            read = scaled_dot_product_attention(
                query[places].transpose(1, 2),
                keys.repeat_interleave(repeats, dim=1),
                values.repeat_interleave(repeats, dim=1),
                attn_mask=mask,
                scale=call.scaling,
            )
            output[places[real]] = read.transpose(1, 2)[real]
        return output[None]

    def _keep(self, call: AttentionCall) -> None:
        key, value = call.key[0], call.value[0]
        if not self.states:
            heads, _, dim = key.shape
            with_values = self._depth if self._last_values else self._depth - 1
            self.states = [
                ChunkState(
                    key.new_empty(self._depth, heads, length, dim),
                    value.new_empty(with_values, heads, length, dim),
                )
                for length in self._lengths
            ]
        keys, values = (torch.split(own, self._lengths, dim=1) for own in (key, value))
        for state, own_keys, own_values in zip(self.states, keys, values, strict=True):
            state.keys[call.layer] = own_keys
            if call.layer < len(state.values):
                state.values[call.layer] = own_values
