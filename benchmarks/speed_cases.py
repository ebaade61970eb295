"""The cases that are timed, and the rows they are reported as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from interleaved import Case
from measured_model import (
    BALANCED,
    DEFAULT,
    FAST,
    JOINT,
    TOGETHER,
    MeasuredModel,
)
from speed_prompts import Prompt

from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache

UNIT = "unit"
QUESTION = ("question",)


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
    Row("cold, together", "cold, together", limit=0.60),
    Row("cold, together + apart", "cold, together + apart", limit=0.70),
    Row("warm, together", "warm, together", limit=0.05),
    Row("question pass, together", "warm, together", QUESTION, limit=0.05),
    Row("warm, together + apart", "warm, together + apart", limit=0.15),
    Row("question pass, together + apart", "warm, together + apart", QUESTION, limit=0.15),
    Row("from disk, together", "from disk, together", limit=0.13),
    Row("from disk, together + apart", "from disk, together + apart", limit=0.23),
    Row("cold, balanced", "cold, balanced", limit=0.45),
    Row("warm, balanced", "warm, balanced"),
    Row("cold, fast", "cold, fast", limit=0.30),
    Row("warm, fast", "warm, fast", limit=0.03),
)
"""Independent reading is `cold` where every chunk is read in the call, `warm` where the chunks'
states are in a store's memory already, `from disk` where they are in its folder alone."""

READOUTS_OF_CASES = {
    "joint": JOINT,
    "cold, together": TOGETHER,
    "cold, together + apart": DEFAULT,
    "warm, together": TOGETHER,
    "warm, together + apart": DEFAULT,
    "from disk, together": TOGETHER,
    "from disk, together + apart": DEFAULT,
    "cold, balanced": BALANCED,
    "warm, balanced": BALANCED,
    "cold, fast": FAST,
    "warm, fast": FAST,
}

COLD_CASES = {
    name: readout for name, readout in READOUTS_OF_CASES.items() if name.startswith("cold")
}


def speed_cases(
    measured: MeasuredModel, prompts: Sequence[Prompt], folder: Path
) -> dict[str, Case]:
    """Return what is timed, by name: the unit, and whole `prune` calls.

    Args:
        measured: The model.
        prompts: The prompts.
        folder: Where states are kept on disk.
    """
    cases: dict[str, Case] = {}
    for name, readout in READOUTS_OF_CASES.items():
        store = None
        if name.startswith("warm"):
            store = ChunkCache()
        elif name.startswith("from disk"):
            store = ChunkCache(folder / readout, max_memory_bytes=0)
        cases[name] = prune_case(measured.pruner(readout, chunk_cache=store), prompts)
    return {UNIT: forward_case(measured, prompts), **cases}


def prune_case(pruner: AT2Pruner, prompts: Sequence[Prompt]) -> Case:
    """Return whole `prune` calls, which tell the seconds of their stages."""

    def run(number: int) -> Mapping[str, float]:
        prompt = prompts[number]
        return pruner.prune(prompt.query, prompt.chunks, top_k=3).timings

    return run


def forward_case(measured: MeasuredModel, prompts: Sequence[Prompt]) -> Case:
    """Return the unit: a full forward pass over each prompt."""
    layouts = measured.pruner(JOINT).scoring_model.prompts
    inputs = [
        torch.tensor([layouts.joint(prompt.query, prompt.chunks).input_ids]) for prompt in prompts
    ]

    def run(number: int) -> Mapping[str, float]:
        with torch.inference_mode():
            measured.model(input_ids=inputs[number], use_cache=False, logits_to_keep=1)
        return {}

    return run
