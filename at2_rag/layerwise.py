"""Sources and question read layer by layer, where no chunk state is to be kept.

The result is that of `chunk_states` and `question_pass`: the same passes run, but in lockstep, so
that the question reads a layer's keys and values as soon as the sources have left them there, and
the next layer's take their place. The memory is that of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from at2_rag.attention import AttentionCall, SpanAttention
from at2_rag.chunk_states import ChunkState, canonical, packs, read_pack
from at2_rag.features import Pass
from at2_rag.lockstep import run_in_lockstep
from at2_rag.prompt import PromptLayout
from at2_rag.question_pass import QuestionPasses
from at2_rag.scoring_model import ScoringModel
from at2_rag.state_groups import GroupPlan, ReadyStates, SourcePart, padding_of, plan_groups
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
            layout's sources, see `state_groups.plan_groups`.
        watch: Takes the time of "encode" and of each pass.

    Returns:
        For each pass the attention over the layers in use, sources (or parts) in order.
    """
    grouped = {
        parts: _LayerStates(prefix, plan_groups(layout, parts), layout)
        for parts in dict.fromkeys(passes.values())
    }
    runs: list[tuple[str, Callable[[], None]]] = []
    for pack in packs(sorted(set(layout.source_ids), key=canonical)):
        keep = _Keeper(pack, list(grouped.values()), last=model.depth - 1).keep
        runs.append(("encode", partial(read_pack, model, prefix, pack, keep)))
    questions = {}
    for name, parts in passes.items():
        states = grouped[parts].ready
        questions[name] = QuestionPasses(model, states, layout, together=name == "together")
        runs.extend((name, run) for run in questions[name].runs)
    run_in_lockstep(runs, watch)
    return {name: question.attention() for name, question in questions.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _LayerGroup:
    """A `SourceGroup` that holds whichever layer is being read.

    Attributes:
        members: As in `SourceGroup`.
        lengths: As in `SourceGroup`.
        padding: As in `SourceGroup`.
        keys: [G, Hkv, W, D].
        values: [G, Hkv, W, D].
    """

    members: Tensor
    lengths: Tensor
    padding: Tensor
    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def layer_keys(self, layer: int) -> Tensor:
        return self.keys

    def layer_values(self, layer: int) -> Tensor:
        return self.values

    def piece(self, start: int, stop: int) -> _LayerGroup:
        return _LayerGroup(
            self.members[start:stop],
            self.lengths[start:stop],
            self.padding[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """Where tokens `start` to `end` of a source stand: [Hkv, end - start, D] of a group's."""

    start: int
    end: int
    keys: Tensor
    values: Tensor


class _LayerStates:
    """One layer's keys and values of the sources of a plan.

    Attributes:
        ready: They, as the question reads them.
        slots: For each source's token ids, where its keys and values go.
    """

    def __init__(self, prefix: ChunkState, plan: GroupPlan, layout: PromptLayout) -> None:
        self.slots: dict[tuple[int, ...], list[_Slot]] = {}
        _, heads, _, dim = prefix.keys.shape
        device = prefix.keys.device
        groups = []
        for members in plan.groups:
            parts = [plan.parts[index] for index in members]
            sources = [layout.source_ids[part.source] for part in parts]
            padding = padding_of([part.end - part.start for part in parts], device)
            shape = (len(members), heads, padding.shape[-1], dim)
            keys, values = (prefix.keys.new_zeros(shape) for _ in range(2))
            for row, (part, ids) in enumerate(zip(parts, sources, strict=True)):
                width = part.end - part.start
                slot = _Slot(part.start, part.end, keys[row, :, :width], values[row, :, :width])
                self.slots.setdefault(ids, []).append(slot)
            lengths = torch.tensor(list(map(len, sources)), device=device)
            groups.append(
                _LayerGroup(torch.tensor(members, device=device), lengths, padding, keys, values)
            )
        self.ready = ReadyStates(prefix, tuple(groups), plan.firsts, plan.longest)


class _Keeper:
    """Copies keys and values of a pack's sources to where the question reads them."""

    def __init__(
        self, pack: Sequence[tuple[int, ...]], states: Sequence[_LayerStates], *, last: int
    ) -> None:
        self._lengths = list(map(len, pack))
        self._slots = [
            [slot for kept in states for slot in kept.slots.get(ids, ())] for ids in pack
        ]
        self._last = last

    def keep(self, call: AttentionCall) -> None:
        keys, values = (torch.split(own[0], self._lengths, dim=1) for own in (call.key, call.value))
        for own_keys, own_values, slots in zip(keys, values, self._slots, strict=True):
            for slot in slots:
                slot.keys.copy_(own_keys[:, slot.start : slot.end])
                if call.layer < self._last:
                    slot.values.copy_(own_values[:, slot.start : slot.end])
