"""Peak memory of one call above the loaded model, each case in a process of its own.

What is measured: the highest resident memory during one call, minus the resident memory just
before it. Before the call the process has loaded the whole model and touched every parameter, built
what is called, called it with one short chunk (lazy imports, thread pools, the prefix's state) and
given free memory back to the system. glibc is told to take blocks of 64 kB and more from the system
and to give them back when freed, so that what counts is in use and not held on to by the allocator;
that takes time, so no time is taken here.
The call's result is still alive at the end, the caller's chunks count as before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from measured_model import JOINT, MeasuredModel, Subject, load
from speed_prompts import Prompt

from at2_rag.errors import AT2Error
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.chunk_states import encode_prefix
from at2_rag.states.store import ChunkCache
from at2_rag.text.chunks import Chunk
from at2_rag.training.commands.record import peak_memory_mb
from at2_rag_evals.resident_memory import (
    give_back_free_memory,
    reset_peak,
    resident,
    resident_peak,
)

_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc's name, with its underscore
WARM_UP = Prompt("Who wrote Emma?", (Chunk("Emma is a novel by Jane Austen."),))


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CallPeak:
    """What any call took.

    Attributes:
        peak: Bytes at the peak, above the loaded model.
        exact: As in `PeakMemory`.
    """

    peak: int
    exact: bool


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """What one call took.

    Attributes:
        chunks: Chunks of the call.
        sources: Sources the chunks were read as: more where long ones were read in windows.
        tokens: Tokens of those.
        peak: Bytes at the peak, above the loaded model.
        states: Bytes of the chunk states, where a store keeps them; 0 in joint reading.
        exact: False where the system can't reset its record of the peak, so that `peak` leaves
            out what loading the model had taken already.
    """

    chunks: int
    sources: int
    tokens: int
    peak: int
    states: int
    exact: bool


def measure_peak(
    subject: Subject, readout: str, prompt: Prompt, *, kept: bool = False
) -> PeakMemory:
    """Measure one `prune` call in a fresh process.

    Args:
        subject: The model.
        readout: The head weights' name.
        prompt: What is pruned.
        kept: Whether a store in memory keeps the states, which then count.

    Raises:
        AT2Error: If the process was killed.
    """
    return in_fresh_process(
        partial(_measure_here, subject, readout, prompt, kept=kept),
        f"pruned {len(prompt.chunks)} chunks",
    )


def in_fresh_process(work: Callable[[], Result], what: str) -> Result:
    """Return what a picklable function returns in a process of its own.

    Args:
        work: The function.
        what: What the process does, in words: "pruned 10 chunks".

    Raises:
        AT2Error: If the process was killed.
    """
    spawning = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
    with environment(_GIVE_BACK), spawning as pool:
        try:
            return pool.submit(work).result()
        except BrokenProcessPool as error:
            raise AT2Error(
                f"the process that {what} was killed, most likely for want of memory; free some, "
                "or leave this out"
            ) from error


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that start meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def load_touched(subject: Subject) -> MeasuredModel:
    """Load a model and touch every parameter, so that all of it is resident."""
    measured = load(subject)
    for parameter in measured.model.parameters():
        parameter.detach().sum()
    return measured


def peak_of_call(
    call: Callable[[], object], *, held: Callable[[], object] = lambda: None
) -> CallPeak:
    """Measure a call in this process.

    Args:
        call: The call.
        held: Runs before it; what is left of it when it returns counts, what it took in between
            doesn't.
    """
    give_back_free_memory()
    before = resident() if reset_peak() else _peak_of_process()
    left = held()
    give_back_free_memory()
    exact = reset_peak()
    result = call()
    peak = (resident_peak() if exact else _peak_of_process()) - before
    del left, result
    return CallPeak(peak, exact)


def _measure_here(subject: Subject, readout: str, prompt: Prompt, *, kept: bool) -> PeakMemory:
    store = ChunkCache(max_memory_bytes=2**40) if kept else None
    pruner = load_touched(subject).pruner(readout, chunk_cache=store)
    pruner.prune(WARM_UP.query, WARM_UP.chunks, top_k=1)
    found = peak_of_call(lambda: pruner.prune(prompt.query, prompt.chunks, top_k=3))
    sources, states = _states(pruner, readout, prompt)
    return PeakMemory(
        chunks=len(prompt.chunks),
        sources=len(sources),
        tokens=sum(map(len, sources)),
        peak=found.peak,
        states=states,
        exact=found.exact,
    )


def _states(
    pruner: AT2Pruner, readout: str, prompt: Prompt
) -> tuple[Sequence[tuple[int, ...]], int]:
    """Return the sources that were read, equal ones once, and what their states would take."""
    model = pruner.scoring_model
    if readout == JOINT:
        return model.prompts.joint(prompt.query, prompt.chunks).source_ids, 0
    layout = model.prompts.independent(prompt.query, prompt.chunks)
    sources = list(dict.fromkeys(layout.source_ids))
    prefix = encode_prefix(model)  # a state's size is proportional to its tokens
    return sources, sum(map(len, sources)) * prefix.nbytes // prefix.tokens


def _peak_of_process() -> int:
    """Return the highest resident memory since the process started, in bytes."""
    return (peak_memory_mb() or 0) * 10**6
