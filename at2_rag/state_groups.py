"""States of the sources of one layout, grouped by length for the question.

The question reads a group's keys in one matrix product, so sources of similar length stand side by
side, padded to the longest. Sources may also be cut into parts, each read as a source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from at2_rag.chunk_states import ChunkState, ChunkStateStore, encode_sources, length_runs
from at2_rag.prompt import PromptLayout
from at2_rag.scoring_model import ScoringModel


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


class SourceGroup(Protocol):
    """Keys and values of G sources of similar length, padded to W tokens, for the question."""

    @property
    def members(self) -> Tensor:
        """Place of each source in its layout, [G] int64."""

    @property
    def lengths(self) -> Tensor:
        """Tokens of each source, [G] int64.

        Of a part, those of its whole source, after which the question stands.
        """

    @property
    def padding(self) -> Tensor:
        """True on padding, [G, 1, 1, W] bool."""

    @property
    def nbytes(self) -> int:
        """Size of keys and values in memory, padding included."""

    def layer_keys(self, layer: int) -> Tensor:
        """Return the keys of one layer, [G, Hkv, W, D]."""

    def layer_values(self, layer: int) -> Tensor:
        """Return the values of one layer, [G, Hkv, W, D]."""

    def piece(self, start: int, stop: int) -> SourceGroup:
        """Return the group of the sources from `start` to `stop`, exclusive (a view)."""


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
    groups: tuple[SourceGroup, ...]
    firsts: tuple[int, ...]
    longest: int

    @property
    def nbytes(self) -> int:
        """Size of the sources' states in memory, padding included."""
        return sum(group.nbytes for group in self.groups)


@dataclass(frozen=True, slots=True, eq=False)
class StateGroup:
    """A `SourceGroup` that holds all layers.

    Attributes:
        members: As in `SourceGroup`.
        lengths: As in `SourceGroup`.
        padding: As in `SourceGroup`.
        keys: [L, G, Hkv, W, D].
        values: [L - 1, G, Hkv, W, D], or [L, ...] as in `ChunkState`.
    """

    members: Tensor
    lengths: Tensor
    padding: Tensor
    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        """As in `SourceGroup`."""
        return self.keys.nbytes + self.values.nbytes

    def layer_keys(self, layer: int) -> Tensor:
        """As in `SourceGroup`."""
        return self.keys[layer]

    def layer_values(self, layer: int) -> Tensor:
        """As in `SourceGroup`."""
        return self.values[layer]

    def piece(self, start: int, stop: int) -> StateGroup:
        """As in `SourceGroup`."""
        return StateGroup(
            self.members[start:stop],
            self.lengths[start:stop],
            self.padding[start:stop],
            self.keys[:, start:stop],
            self.values[:, start:stop],
        )


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """Which sources, or parts of them, stand in which group.

    Attributes:
        parts: What is read as a source of its own, in the layout's order.
        groups: For each group the places of its members in `parts`.
        firsts: As in `ReadyStates`.
        longest: As in `ReadyStates`.
    """

    parts: tuple[SourcePart, ...]
    groups: tuple[tuple[int, ...], ...]
    firsts: tuple[int, ...]
    longest: int


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
    return gather_states(prefix, states, layout)


def gather_states(
    prefix: ChunkState,
    states: Mapping[tuple[int, ...], ChunkState],
    layout: PromptLayout,
    *,
    parts: Sequence[SourcePart] | None = None,
) -> ReadyStates:
    """Bring a layout's states together for questions.

    Args:
        prefix: The prefix's state.
        states: The state of each of the layout's sources.
        layout: An independent layout with at least one source.
        parts: As in `plan_groups`.
    """
    plan = plan_groups(layout, parts)
    groups = []
    for members in plan.groups:
        cut = [(states[layout.source_ids[plan.parts[i].source]], plan.parts[i]) for i in members]
        groups.append(
            _group(
                [state.part(part.start, part.end) for state, part in cut],
                torch.tensor(members, device=prefix.keys.device),
                torch.tensor([state.tokens for state, _ in cut], device=prefix.keys.device),
            )
        )
    return ReadyStates(prefix, tuple(groups), plan.firsts, plan.longest)


def plan_groups(layout: PromptLayout, parts: Sequence[SourcePart] | None = None) -> GroupPlan:
    """Group a layout's sources by length.

    Args:
        layout: An independent layout with at least one source.
        parts: What to read in place of the layout's sources, at least one; tokens in no part are
            hidden from the question. None for the sources, whole.
    """
    sources = layout.source_ids
    if parts is None:
        parts = [SourcePart(index, 0, len(ids)) for index, ids in enumerate(sources)]
    keys = [(part.end - part.start, sources[part.source], part.start) for part in parts]
    order = sorted(range(len(parts)), key=keys.__getitem__)
    runs = length_runs([keys[index][0] for index in order])
    groups = tuple(tuple(order[run.start : run.stop]) for run in runs)
    first: dict[tuple[int, tuple[int, ...], int], int] = {}
    firsts = tuple(first.setdefault(key, index) for index, key in enumerate(keys))
    return GroupPlan(tuple(parts), groups, firsts, max(map(len, sources)))


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
    padding = padding_of([state.tokens for state in states], device)
    return StateGroup(members, lengths, padding, keys, values)


def padding_of(tokens: Sequence[int], device: torch.device) -> Tensor:
    """Return which places are padding, [G, 1, 1, W], in a group of so many tokens each."""
    places = torch.arange(max(1, *tokens), device=device)
    return (places >= torch.tensor(tokens, device=device)[:, None])[:, None, None]
