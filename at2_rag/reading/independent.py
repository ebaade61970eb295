"""Independent reading: chunks are read each by itself, then the question over their states.

The one function that reads so, for pruning, training and evals. The passes over the chunks and over
the question run in lockstep, a layer of each at a time: the question reads a layer's keys and
values as soon as the chunks have left them there, and the next layer's take their place. So one
layer is in memory. Chunks whose states are there already only leave a layer of them each time.
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
    """A layout, and what its question is read over.

    Attributes:
        layout: An independent layout with at least one source.
        passes: The passes wanted, "together" or "apart", each with what it reads in place of the
            layout's sources, see `make_room`; None for the sources themselves.
    """

    layout: PromptLayout
    passes: Mapping[Pass, tuple[SourcePart, ...] | None]


def read_independent(
    model: ScoringModel,
    prefix: ChunkState,
    wanted: Sequence[LayoutPasses],
    *,
    states: Mapping[tuple[int, ...], ChunkState] | None = None,
    watch: Stopwatch | None = None,
) -> list[dict[Pass, SpanAttention]]:
    """Read layouts' sources and their questions.

    Args:
        model: The scoring model.
        prefix: The prefix's state.
        wanted: The layouts; what they have in common is read once.
        states: States of sources, by their token ids, that are not read again.
        watch: Takes the time of "encode" and "question".

    Returns:
        For each layout and pass the attention [L, H, S] over the layers in use, sources (or parts)
        in order.

    Raises:
        UnsupportedModelError: If the model can't read sources independently, or holds a lock while
            it reads a prompt, which passes that wait for each other can't.
    """
    model.check_independent()
    rooms: list[Mapping[tuple[int, ...], Sequence[SourceRoom]]] = []
    questions: list[dict[Pass, QuestionReading]] = []
    for layout_passes in wanted:
        layout, readings = layout_passes.layout, {}
        for parts in dict.fromkeys(layout_passes.passes.values()):
            grouped, places = make_room(prefix, layout, parts)
            rooms.append(places)
            for name, other in layout_passes.passes.items():
                if other == parts:
                    together = name == "together"
                    readings[name] = QuestionReading(model, grouped, layout, together=together)
        questions.append({name: readings[name] for name in layout_passes.passes})
    runs: list[tuple[str, Callable[[], None]]] = []
    sources = {ids for one in wanted for ids in one.layout.source_ids} - {()}
    ready = {ids: states[ids] for ids in sources if ids in states} if states else {}
    if ready:
        runs.append(("encode", partial(_leave, ready, rooms, model.depth)))
    for pack in packs(sorted(sources - ready.keys(), key=canonical)):
        runs.append(("encode", partial(read_pack, model, prefix, pack, _Keeper(pack, rooms).keep)))
    calls = question_calls(model, [one for readings in questions for one in readings.values()])
    runs += [("question", call) for call in calls]
    run_in_lockstep(runs, Stopwatch() if watch is None else watch)
    return [{name: one.attention() for name, one in found.items()} for found in questions]


def _leave(
    states: Mapping[tuple[int, ...], ChunkState],
    rooms: Sequence[Mapping[tuple[int, ...], Sequence[SourceRoom]]],
    depth: int,
) -> None:
    """Copy ready states to where the question reads them, a layer whenever its turn comes."""
    copies = [
        # A cache may hand out states that are elsewhere than the model, perhaps page-locked.
        (target[0], kept[:, :, room.start : room.end].unbind(), kept.is_pinned())
        for ids, state in states.items()
        for by_source in rooms
        for room in by_source.get(ids, ())
        for target, kept in ((room.keys, state.keys), (room.values, state.values))
        if len(kept)
    ]
    for layer in range(depth):
        between_layers()
        for target, layers, pinned in copies:
            if layer < len(layers):
                target.copy_(layers[layer], non_blocking=pinned)


class _Keeper:
    """Copies keys and values of a pack's sources to where the question reads them.

    Args:
        pack: Token ids of the sources.
        rooms: For each reading of them where their keys and values go, by token ids.
    """

    def __init__(
        self,
        pack: Sequence[tuple[int, ...]],
        rooms: Sequence[Mapping[tuple[int, ...], Sequence[SourceRoom]]],
    ) -> None:
        self._lengths = list(map(len, pack))
        self._rooms = [
            [room for by_source in rooms for room in by_source.get(ids, ())] for ids in pack
        ]

    def keep(self, call: AttentionCall) -> None:
        # [1, Hkv, N, D] -> for each source [Hkv, W, D]
        keys = torch.split(call.key[0], self._lengths, dim=1)
        values = torch.split(call.value[0], self._lengths, dim=1)
        for key, value, rooms in zip(keys, values, self._rooms, strict=True):
            for room in rooms:
                room.keys.copy_(key[None, :, room.start : room.end])
                room.values.copy_(value[None, :, room.start : room.end])
