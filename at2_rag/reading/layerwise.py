"""Sources and question read layer by layer.

The result is that of `chunk_states` and `question_pass`: the same passes run, but in lockstep, so
that the question reads a layer's keys and values as soon as the sources have left them there, and
the next layer's take their place. The memory is that of one layer. Sources that have states already
leave a layer of them there instead of being read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.attention import AttentionCall, SpanAttention
from at2_rag.reading.chunk_states import ChunkState, canonical, packs, read_pack
from at2_rag.reading.features import Pass
from at2_rag.reading.lockstep import between_layers, run_in_lockstep
from at2_rag.reading.question_pass import QuestionReading, question_calls
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.reading.state_groups import SourceRoom, make_room
from at2_rag.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True, eq=False)
class LayoutPasses:
    """A layout, and what its question reads.

    Attributes:
        layout: An independent layout with at least one source.
        passes: The passes wanted, "together" or "apart", each with what it reads in place of the
            layout's sources, see `state_groups.make_room`.
    """

    layout: PromptLayout
    passes: Mapping[Pass, tuple[SourcePart, ...] | None]


def read_layerwise(
    model: ScoringModel,
    prefix: ChunkState,
    wanted: Sequence[LayoutPasses],
    watch: Stopwatch,
    *,
    states: Mapping[tuple[int, ...], ChunkState] | None = None,
) -> list[dict[Pass, SpanAttention]]:
    """Read layouts' sources and their questions.

    Args:
        model: The scoring model.
        prefix: The prefix's state.
        wanted: The layouts; what they have in common is read once.
        watch: Takes the time of "encode" and "question".
        states: States of sources, by their token ids, that are not to be read again.

    Returns:
        For each layout and pass the attention over the layers in use, sources (or parts) in order.

    Raises:
        UnsupportedModelError: If the model can't read sources independently; among others where
            its prompts take turns, which passes that wait for each other can't.
    """
    model.check_independent()
    rooms: list[Mapping[tuple[int, ...], Sequence[SourceRoom]]] = []
    questions: list[dict[Pass, QuestionReading]] = []
    for own in wanted:
        grouped = {
            parts: make_room(prefix, own.layout, parts, one_layer=True)
            for parts in dict.fromkeys(own.passes.values())
        }
        rooms.extend(places for _, places in grouped.values())
        questions.append(
            {
                name: QuestionReading(
                    model, grouped[parts][0], own.layout, together=name == "together"
                )
                for name, parts in own.passes.items()
            }
        )
    runs: list[tuple[str, Callable[[], None]]] = []
    sources = {ids for own in wanted for ids in own.layout.source_ids} - {()}
    ready = {ids: states[ids] for ids in sources if ids in states} if states else {}
    if ready:
        runs.append(("encode", partial(_leave, ready, rooms, model.depth)))
    for pack in packs(sorted(sources - ready.keys(), key=canonical)):
        runs.append(("encode", partial(read_pack, model, prefix, pack, _Keeper(pack, rooms).keep)))
    calls = question_calls(model, [reading for own in questions for reading in own.values()])
    run_in_lockstep([*runs, *(("question", call) for call in calls)], watch)
    return [{name: own.attention() for name, own in found.items()} for found in questions]


def _leave(
    states: Mapping[tuple[int, ...], ChunkState],
    rooms: Sequence[Mapping[tuple[int, ...], Sequence[SourceRoom]]],
    depth: int,
) -> None:
    """Copy ready states to where the question reads them, a layer whenever its turn comes."""
    copies = [
        # A store may hand out states that are elsewhere than the model, perhaps page-locked.
        (place[0], kept[:, :, room.start : room.end].unbind(), kept.is_pinned())
        for ids, state in states.items()
        for own in rooms
        for room in own.get(ids, ())
        for place, kept in ((room.keys, state.keys), (room.values, state.values))
        if len(kept)
    ]
    for layer in range(depth):
        between_layers()
        for place, layers, pinned in copies:
            if layer < len(layers):
                place.copy_(layers[layer], non_blocking=pinned)


class _Keeper:
    """Copies keys and values of a pack's sources to where the question reads them.

    Args:
        pack: Token ids of the sources.
        rooms: For each reading of them their places, by token ids, with room for one layer.
    """

    def __init__(
        self,
        pack: Sequence[tuple[int, ...]],
        rooms: Sequence[Mapping[tuple[int, ...], Sequence[SourceRoom]]],
    ) -> None:
        self._lengths = list(map(len, pack))
        self._rooms = [[room for own in rooms for room in own.get(ids, ())] for ids in pack]

    def keep(self, call: AttentionCall) -> None:
        keys, values = (torch.split(own[0], self._lengths, dim=1) for own in (call.key, call.value))
        for own_keys, own_values, rooms in zip(keys, values, self._rooms, strict=True):
            for room in rooms:
                room.keys.copy_(own_keys[None, :, room.start : room.end])
                room.values.copy_(own_values[None, :, room.start : room.end])
