"""Room for one layer of the states of a layout's sources, grouped by length for the question.

The question reads a group's keys in one matrix product, so sources of similar length are side by
side, padded to the longest. Sources may also be cut into parts, each read as a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.chunk_states import ChunkState, length_runs

# Most tokens of a layout of which one layer is kept in float32, as the question reads it, so that
# nothing converts it again; one with more is in the model's type and takes half the memory.
FLOAT32_TOKENS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class GroupedStates:
    """The prefix's state, and room for one layer of the states of a layout's S sources."""

    prefix: ChunkState
    groups: tuple[StateGroup, ...]
    firsts: tuple[int, ...]  # for each source the index of the first that equals it
    longest: int  # tokens of the longest source; where parts are read, of the longest whole one


@dataclass(frozen=True, slots=True, eq=False)
class StateGroup:
    """One layer of the states of G sources of similar length, padded to W tokens.

    The length of a part is that of its whole source, after which the question stands.
    """

    members: Tensor  # [G] int64, index of each source in its layout
    lengths: Tensor  # [G] int64, tokens of each source
    keys: Tensor  # [Hkv, G, W, D]
    values: Tensor  # [Hkv, G, W, D]
    padding: Tensor | None  # [G, W], added to logits: -inf on padding; None if there is none

    def rows(self, start: int, stop: int) -> StateGroup:
        """Return the group's sources from `start` to `stop`, exclusive (views)."""
        return StateGroup(
            self.members[start:stop],
            self.lengths[start:stop],
            self.keys[:, start:stop],
            self.values[:, start:stop],
            None if self.padding is None else self.padding[start:stop],
        )


@dataclass(frozen=True, slots=True, eq=False)
class SourceRoom:
    """Where a layer of a source's state, or of a part of it, goes: views into its group."""

    part: slice  # the part's W tokens within the source
    keys: Tensor  # [Hkv, W, D]
    values: Tensor  # [Hkv, W, D]


RoomBySource = dict[tuple[int, ...], list[SourceRoom]]
"""By a source's token ids where its state goes: once for each of its parts and occurrences."""


def make_room(
    prefix: ChunkState, layout: PromptLayout, parts: Sequence[SourcePart] | None = None
) -> tuple[GroupedStates, RoomBySource]:
    """Group an independent layout's sources by length, with room for one layer of their states.

    With `parts` these are read in place of the whole sources, and tokens in no part are hidden from
    the question.
    """
    sources = layout.source_ids
    if parts is None:
        parts = [SourcePart(index, 0, len(ids)) for index, ids in enumerate(sources)]
    sorting = [(part.end - part.start, sources[part.source], part.start) for part in parts]
    order = sorted(range(len(parts)), key=sorting.__getitem__)
    device = prefix.keys.device
    _, key_heads, _, dim = prefix.keys.shape
    small = sum(size for size, _, _ in sorting) <= FLOAT32_TOKENS
    dtype = torch.float32 if small else prefix.keys.dtype
    groups = []
    rooms: RoomBySource = {}
    for run in length_runs([sorting[index][0] for index in order]):
        members = order[run.start : run.stop]
        widths = [sorting[index][0] for index in members]
        width = max(1, *widths)
        keys, values = torch.zeros(
            2, key_heads, len(members), width, dim, dtype=dtype, device=device
        )
        for row, index in enumerate(members):
            part, cells = parts[index], (slice(None), row, slice(widths[row]))
            room = SourceRoom(slice(part.start, part.end), keys[cells], values[cells])
            rooms.setdefault(sources[part.source], []).append(room)
        lengths = torch.tensor([len(sources[parts[i].source]) for i in members], device=device)
        padding = None
        if widths[0] < width:
            padding = torch.zeros(len(members), width)
            padding[torch.arange(width) >= torch.tensor(widths)[:, None]] = -torch.inf
            padding = padding.to(device)
        indices = torch.tensor(members, device=device)
        groups.append(StateGroup(indices, lengths, keys, values, padding))
    first: dict[tuple[int, tuple[int, ...], int], int] = {}
    firsts = tuple(first.setdefault(key, index) for index, key in enumerate(sorting))
    return GroupedStates(prefix, tuple(groups), firsts, max(map(len, sources))), rooms
