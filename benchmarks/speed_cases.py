"""The cases that are timed, and the rows they are reported as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from interleaved import Case
from measured_model import JOINT, TOGETHER, TOGETHER_APART, MeasuredModel
from speed_prompts import Prompt

from at2_rag.chunk_states import ChunkState
from at2_rag.pruner import AT2Pruner

UNIT = "unit"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the speed table.

    Attributes:
        title: What it says.
        case: The case it is about.
        stages: Stages of it that count; none for the whole call.
        limit: Ratio to the unit that it must not exceed, if there is a limit.
    """

    title: str
    case: str
    stages: tuple[str, ...] = ()
    limit: float | None = None


ROWS = (
    Row("full forward pass (the unit)", UNIT),
    Row("joint", "joint", limit=0.70),
    Row("cold, together", "cold, together", limit=0.80),
    Row("cold, together + apart", "cold, together + apart", limit=0.95),
    Row("ready states, together", "ready, together", limit=0.05),
    Row("question pass, together", "ready, together", TOGETHER, limit=0.05),
    Row("ready states, together + apart", "ready, together + apart", limit=0.20),
    Row("question passes, together + apart", "ready, together + apart", TOGETHER_APART, limit=0.20),
)
"""Independent reading is `cold` where every chunk is read in the call, `ready` where the chunks'
states are in a store already."""

PASSES_OF_CASES = {
    "joint": JOINT,
    "cold, together": TOGETHER,
    "cold, together + apart": TOGETHER_APART,
    "ready, together": TOGETHER,
    "ready, together + apart": TOGETHER_APART,
}


def speed_cases(measured: MeasuredModel, prompts: Sequence[Prompt]) -> dict[str, Case]:
    """Return what is timed, by name: the unit, and whole `prune` calls."""
    cases: dict[str, Case] = {}
    for name, passes in PASSES_OF_CASES.items():
        store: dict[str, ChunkState] | None = {} if name.startswith("ready") else None
        cases[name] = _prune(measured.pruner(passes, chunk_states=store), prompts)
    return {UNIT: _forward(measured, prompts), **cases}


def _prune(pruner: AT2Pruner, prompts: Sequence[Prompt]) -> Case:
    def run(number: int) -> Mapping[str, float]:
        prompt = prompts[number]
        return pruner.prune(prompt.query, prompt.chunks, top_k=3).timings

    return run


def _forward(measured: MeasuredModel, prompts: Sequence[Prompt]) -> Case:
    layouts = measured.pruner(JOINT).scoring_model.prompts
    inputs = [
        torch.tensor([layouts.joint(prompt.query, prompt.chunks).input_ids]) for prompt in prompts
    ]

    def run(number: int) -> Mapping[str, float]:
        with torch.inference_mode():
            measured.model(input_ids=inputs[number], use_cache=False, logits_to_keep=1)
        return {}

    return run
