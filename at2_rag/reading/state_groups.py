"""The states of a layout's sources, grouped by length for the question.

The question reads a group's keys in one matrix product, so sources of similar length are side by
side, padded to the longest. Sources may also be cut into parts, each read as a source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.chunk_states import ChunkState, length_runs


@dataclass(frozen=True, slots=True, eq=False)
class GroupedStates:
    """The states of the prefix and of a layout's S sources."""

    prefix: ChunkState
    groups: tuple[StateGroup, ...]
    firsts: tuple[int, ...]  # for each source the index of the first that equals it
    longest: int  # tokens of the longest source; where parts are read, of the longest whole one


@dataclass(frozen=True, slots=True, eq=False)
class StateGroup:
    """The states of G sources of similar length, padded to W tokens.

    The length of a part is that of its whole source, after which the question stands.
    """

    members: Tensor  # [G] int64, index of each source in its layout
    lengths: Tensor  # [G] int64, tokens of each source
    states: tuple[ChunkState, ...]  # G of them
    padding: Tensor | None  # [G, W], added to logits: -inf on padding; None if there is none
    width: int  # W, at least 1

    def rows(self, start: int, stop: int) -> StateGroup:
        """Return the group's sources from `start` to `stop`, exclusive."""
        return StateGroup(
            self.members[start:stop],
            self.lengths[start:stop],
            self.states[start:stop],
            None if self.padding is None else self.padding[start:stop],
            self.width,
        )

    def layer(self, layer: int, *, keys_only: bool) -> tuple[Tensor, Tensor]:
        """Return keys and values of a layer, [Hkv, G, W, D] float32; without values, keys twice."""
        keys = self._side_by_side([state.keys[layer] for state in self.states])
        if keys_only:
            return keys, keys
        return keys, self._side_by_side([state.values[layer] for state in self.states])

    def _side_by_side(self, numbers: Sequence[Tensor]) -> Tensor:
        heads, _, dim = numbers[0].shape
        shape = heads, len(numbers), self.width, dim
        padded = torch.zeros(shape, device=self.members.device)
        for row, of_source in enumerate(numbers):
            padded[:, row, : of_source.shape[1]] = of_source
        return padded


def group_states(
    prefix: ChunkState,
    layout: PromptLayout,
    states: Mapping[tuple[int, ...], ChunkState],
    parts: Sequence[SourcePart] | None = None,
) -> GroupedStates:
    """Group the states of an independent layout's sources, by their token ids, by length.

    With `parts` these are read in place of the whole sources, and tokens in no part are hidden from
    the question.
    """
    sources = layout.source_ids
    if parts is None:
        parts = [SourcePart(index, 0, len(ids)) for index, ids in enumerate(sources)]
    sorting = [(part.end - part.start, sources[part.source], part.start) for part in parts]
    order = sorted(range(len(parts)), key=sorting.__getitem__)
    device = prefix.keys.device
    groups = []
    for run in length_runs([sorting[index][0] for index in order]):
        members = order[run.start : run.stop]
        widths = [sorting[index][0] for index in members]
        width = max(1, *widths)
        padding = None
        if widths[0] < width:
            padding = torch.zeros(len(members), width)
            padding[torch.arange(width) >= torch.tensor(widths)[:, None]] = -torch.inf
            padding = padding.to(device)
        of_parts = [parts[index] for index in members]
        groups.append(
            StateGroup(
                torch.tensor(members, device=device),
                torch.tensor([len(sources[part.source]) for part in of_parts], device=device),
                tuple(states[sources[part.source]].tokens_of(part) for part in of_parts),
                padding,
                width,
            )
        )
    first: dict[tuple[int, tuple[int, ...], int], int] = {}
    firsts = tuple(first.setdefault(key, index) for index, key in enumerate(sorting))
    return GroupedStates(prefix, tuple(groups), firsts, max(map(len, sources)))
