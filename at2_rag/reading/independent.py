"""Independent reading: chunks are read each by itself, then the question over their states.

The one function that reads so, for pruning, training and evals. The passes over the chunks and over
the question run in lockstep, a layer of each at a time: the question reads a layer's keys and
values as soon as the chunks have left them there, and the next layer's take their place. So one
layer is in memory. Chunks whose states are there already only leave a layer of them each time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from at2_rag.progress import Stopwatch
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.attention import AttentionCall, SpanAttention
from at2_rag.reading.chunk_states import ChunkState, canonical, packs, read_pack
from at2_rag.reading.features import Pass
from at2_rag.reading.lockstep import between_layers, run_in_lockstep
from at2_rag.reading.question_pass import QuestionReading, question_calls
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.reading.state_groups import RoomBySource, make_room


@dataclass(frozen=True, slots=True, eq=False)
class LayoutPasses:
    """An independent layout with at least one source, and what its question is read over."""

    layout: PromptLayout
    # Each pass ("together" or "apart") with the parts it reads; None for the whole sources.
    passes: Mapping[Pass, tuple[SourcePart, ...] | None]


def read_independent(
    model: ScoringModel,
    prefix: ChunkState,
    wanted: Sequence[LayoutPasses],
    *,
    states: Mapping[tuple[int, ...], ChunkState] | None = None,
    watch: Stopwatch | None = None,
) -> list[dict[Pass, SpanAttention]]:
    """Read layouts' sources and their questions; sources that layouts share are read once.

    Sources whose `states` are known, by their token ids, are not read again. `watch` takes the time
    of "encode" and "question". Returns the attention to the sources (or parts) of each layout and
    pass.
    """
    model.check_independent()
    rooms: RoomBySource = defaultdict(list)
    questions: list[dict[Pass, QuestionReading]] = []
    for layout_passes in wanted:
        layout, passes = layout_passes.layout, layout_passes.passes
        grouped = {}
        for parts in dict.fromkeys(passes.values()):
            grouped[parts], by_source = make_room(prefix, layout, parts)
            for ids, targets in by_source.items():
                rooms[ids] += targets
        questions.append(
            {
                name: QuestionReading(model, grouped[parts], layout, together=name == "together")
                for name, parts in passes.items()
            }
        )
    runs: list[tuple[str, Callable[[], None]]] = []
    sources = {ids for one in wanted for ids in one.layout.source_ids} - {()}
    ready = {ids: states[ids] for ids in sources if ids in states} if states else {}
    if ready:
        runs.append(("encode", partial(_leave, ready, rooms, model.depth)))
    for pack in packs(sorted(sources - ready.keys(), key=canonical)):
        runs.append(("encode", partial(read_pack, model, prefix, pack, _keeper(pack, rooms))))
    calls = question_calls(model, [one for readings in questions for one in readings.values()])
    runs += [("question", call) for call in calls]
    run_in_lockstep(runs, Stopwatch() if watch is None else watch)
    return [{name: one.attention() for name, one in readings.items()} for readings in questions]


def _leave(states: Mapping[tuple[int, ...], ChunkState], rooms: RoomBySource, depth: int) -> None:
    """Copy ready states to where the question reads them, a layer whenever its turn comes."""
    copies = [
        # A cache may hand out states that are elsewhere than the model, perhaps page-locked.
        (target, kept[:, :, room.part].unbind(), kept.is_pinned())
        for ids, state in states.items()
        for room in rooms[ids]
        for target, kept in ((room.keys, state.keys), (room.values, state.values))
    ]
    for layer in range(depth):
        between_layers()
        for target, layers, pinned in copies:
            if layer < len(layers):  # values of the last layer aren't needed
                target.copy_(layers[layer], non_blocking=pinned)


def _keeper(
    pack: Sequence[tuple[int, ...]], rooms: RoomBySource
) -> Callable[[AttentionCall], None]:
    """Return what copies a layer of a pack's sources to where the question reads it."""
    lengths = list(map(len, pack))

    def keep(call: AttentionCall) -> None:
        # [1, Hkv, N, D] -> for each source [Hkv, W, D]
        keys = torch.split(call.key[0], lengths, dim=1)
        values = torch.split(call.value[0], lengths, dim=1)
        for ids, key, value in zip(pack, keys, values, strict=True):
            for room in rooms[ids]:
                room.keys.copy_(key[:, room.part])
                room.values.copy_(value[:, room.part])

    return keep
