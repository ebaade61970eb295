"""Sources and question read layer by layer, where no chunk state is to be kept.

The result is that of `chunk_states` and `question_pass`: the same passes run, but in lockstep, so
that the question reads a layer's keys and values as soon as the sources have left them there, and
the next layer's take their place. The memory is that of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from at2_rag.attention import AttentionCall, SpanAttention
from at2_rag.chunk_states import ChunkState, canonical, packs, read_pack
from at2_rag.features import Pass
from at2_rag.lockstep import run_in_lockstep
from at2_rag.prompt import PromptLayout
from at2_rag.question_pass import QuestionPasses
from at2_rag.scoring_model import ScoringModel
from at2_rag.state_groups import SourcePart, SourceRoom, make_room
from at2_rag.stopwatch import Stopwatch


def read_layerwise(
    model: ScoringModel,
    prefix: ChunkState,
    layout: PromptLayout,
    passes: Mapping[Pass, tuple[SourcePart, ...] | None],
    watch: Stopwatch,
) -> dict[Pass, SpanAttention]:
    """Read a layout's sources and its question.

    Args:
        model: The scoring model.
        prefix: The prefix's state.
        layout: An independent layout with at least one source.
        passes: The passes wanted, "together" or "apart", each with what it reads in place of the
            layout's sources, see `state_groups.make_room`.
        watch: Takes the time of "encode" and of each pass.

    Returns:
        For each pass the attention over the layers in use, sources (or parts) in order.

    Raises:
        UnsupportedModelError: If the model can't read sources independently; among others where
            its prompts take turns, which passes that wait for each other can't.
    """
    model.check_independent()
    grouped = {
        parts: make_room(prefix, layout, parts, one_layer=True)
        for parts in dict.fromkeys(passes.values())
    }
    rooms = [own for _, own in grouped.values()]
    runs: list[tuple[str, Callable[[], None]]] = []
    for pack in packs(sorted(set(layout.source_ids) - {()}, key=canonical)):
        keep = _Keeper(pack, rooms).keep
        runs.append(("encode", partial(read_pack, model, prefix, pack, keep)))
    questions = {}
    for name, parts in passes.items():
        states, _ = grouped[parts]
        questions[name] = QuestionPasses(model, states, layout, together=name == "together")
        runs.extend((name, run) for run in questions[name].runs)
    run_in_lockstep(runs, watch)
    return {name: question.attention() for name, question in questions.items()}


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
