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

FLOAT32_TOKENS = 8192
"""Most tokens of a layout of which one layer is kept in float32, as the question reads it, so that
nothing converts it again; one with more is in the model's type and takes half the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class GroupedStates:
    """The prefix's state, and room for those of all sources of one layout.

    Attributes:
        prefix: State of the prefix.
        groups: Sources of similar length, padded to the longest of their group.
        firsts: For each of the S sources the first one that equals it, perhaps itself.
        longest: Tokens of the longest source; where parts are read, of the longest whole one.
    """

    prefix: ChunkState
    groups: tuple[StateGroup, ...]
    firsts: tuple[int, ...]
    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class StateGroup:
    """States of G sources, padded to W tokens.

    Attributes:
        members: [G] int64, place of each source in its layout.
        lengths: [G] int64, tokens of each source; of a part, those of its whole source, after
            which the question stands.
        keys: [L, Hkv, G, W, D].
        values: [L - 1, Hkv, G, W, D], or [L, ...] as in `ChunkState`.
        padding: [G, W] float32, what is added to logits: minus infinity on padding, 0 elsewhere.
            None where all sources are equally long.
    """

    members: Tensor
    lengths: Tensor
    keys: Tensor
    values: Tensor
    padding: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class SourceRoom:
    """Where the state of a source, or of a part of it, goes in its group.

    Attributes:
        start: The part's first token within the source.
        end: The end of it, exclusive.
        keys: [L, Hkv, end - start, D], a view into the group's.
        values: Likewise.
    """

    start: int
    end: int
    keys: Tensor
    values: Tensor


def make_room(
    prefix: ChunkState,
    layout: PromptLayout,
    parts: Sequence[SourcePart] | None = None,
) -> tuple[GroupedStates, dict[tuple[int, ...], list[SourceRoom]]]:
    """Group a layout's sources by length, with room for one layer of their states.

    The groups show that layer in place of every layer. It is in float32 where the layout is small,
    see `FLOAT32_TOKENS`.

    Args:
        prefix: The prefix's state.
        layout: An independent layout with at least one source.
        parts: What to read in place of the layout's sources, at least one; tokens in no part are
            hidden from the question. None for the sources, whole.

    Returns:
        The groups, all zero, and for each source's token ids where its state goes, once for each
        of its parts and for each time that the layout has it.
    """
    sources = layout.source_ids
    if parts is None:
        parts = [SourcePart(index, 0, len(ids)) for index, ids in enumerate(sources)]
    sorting = [(part.end - part.start, sources[part.source], part.start) for part in parts]
    order = sorted(range(len(parts)), key=sorting.__getitem__)
    device = prefix.keys.device
    small = sum(size for size, _, _ in sorting) <= FLOAT32_TOKENS
    dtype = torch.float32 if small else prefix.keys.dtype
    groups = []
    rooms: dict[tuple[int, ...], list[SourceRoom]] = {}
    for run in length_runs([sorting[index][0] for index in order]):
        members = order[run.start : run.stop]
        widths = [sorting[index][0] for index in members]
        width = max(1, *widths)
        keys, values = (
            like.new_zeros(
                min(1, len(like)),
                *(like.shape[1], len(members), width, like.shape[3]),
                dtype=dtype,
            )
            for like in (prefix.keys, prefix.values)
        )
        for row, index in enumerate(members):
            part, cells = parts[index], (slice(None), slice(None), row, slice(widths[row]))
            room = SourceRoom(part.start, part.end, keys[cells], values[cells])
            rooms.setdefault(sources[part.source], []).append(room)
        lengths = torch.tensor([len(sources[parts[i].source]) for i in members], device=device)
        padding = None
        if widths[0] < width:
            padding = torch.zeros(len(members), width)
            padding[torch.arange(width) >= torch.tensor(widths)[:, None]] = -torch.inf
            padding = padding.to(device)
        groups.append(
            StateGroup(
                torch.tensor(members, device=device),
                lengths,
                keys.expand(len(prefix.keys), -1, -1, -1, -1),
                values.expand(len(prefix.values), -1, -1, -1, -1),
                padding,
            )
        )
    first: dict[tuple[int, tuple[int, ...], int], int] = {}
    firsts = tuple(first.setdefault(key, index) for index, key in enumerate(sorting))
    return GroupedStates(prefix, tuple(groups), firsts, max(map(len, sources))), rooms
