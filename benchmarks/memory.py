"""Peak memory of at2_rag's calls above the loaded model.

python benchmarks/memory.py
python benchmarks/memory.py --data FILE.jsonl.gz --chunks 10 --chunks 50 --output FOLDER

README.md beside this file says how it is taken.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import click
import psutil
from cases import REMOVALS, prune_case, removal_cases
from models import DEFAULT, JOINT, NO_LIMIT, make_pruner, prompt_builder, weights_record
from prompts import CHUNKS, WARM_UP, Prompt, joint_tokens
from reference_at2 import REFERENCE, load_reference
from report import (
    POSITIVE,
    Report,
    Row,
    SharedOptions,
    ablations_option,
    growth_notes,
    reference_option,
    shared_options,
)
from timing import Case

from at2_rag.errors import AT2Error
from at2_rag.model.loading import LoadedModel
from at2_rag.progress import StepProgress
from at2_rag.reading.chunk_states import encode_prefix
from at2_rag.states.store import ChunkCache

SEED = 0
KEPT = f"{DEFAULT}, states kept"
MB = 1e6

_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_INTERVAL = 0.001


class CallPeak(NamedTuple):
    """Bytes of one call above what the process held before: at its peak, and after it."""

    peak: int
    growth: int


@click.command("memory", context_settings={"show_default": True})
@shared_options
@ablations_option
@reference_option
@click.option(
    "--chunks",
    type=POSITIVE,
    multiple=True,
    default=(10, 20, 50, 100, 200, 500),
    help="Chunks of a call; repeat.",
)
def main(
    *,
    shared: SharedOptions,
    chunks: tuple[int, ...],
    ablations: bool,
    reference: tuple[Path, ...],
) -> None:
    """Measure peak memory of `prune`, by reading and number of chunks."""
    model = shared.load()
    layouts = prompt_builder(model)
    prompts = shared.prompts(model, 1)
    weights = weights_record(model, DEFAULT, JOINT)
    report = Report("Peak memory", shared, model, seed=SEED, head_weights=weights)
    rows: list[Row] = []
    with StepProgress() as progress:
        progress("numbers of chunks", 0, len(chunks))
        for size in chunks:
            prompt = prompts.of_size(size)
            cases = [DEFAULT, KEPT, *([JOINT] if joint_tokens(layouts, prompt) else [])]
            peaks = {case: measure(shared, case, prompt) for case in cases}
            rows.append(size_row(model, prompt, peaks))
            progress("numbers of chunks", len(rows), len(chunks))
    title = "Peak of a call above the loaded model, MB"
    report.add(title, rows, f"Chunks from {prompts.source}.", *growth_notes(rows, [DEFAULT]))
    others = [REMOVALS] * ablations + [REFERENCE] * bool(reference)
    if others:
        prompt = prompts.of_size(CHUNKS)
        rows = [
            {"case": case, "peak": measure(shared, case, prompt, reference).peak / MB}
            for case in (DEFAULT, *others)
        ]
        report.add(f"Peak of other ways over {CHUNKS} chunks, MB", rows)


def size_row(model: LoadedModel, prompt: Prompt, peaks: Mapping[str, CallPeak]) -> Row:
    """Return the peaks of one prompt in MB, and what the states of its chunks take."""
    scoring_model = make_pruner(model, DEFAULT).scoring_model
    layout = scoring_model.prompts.independent(prompt.query, prompt.chunks)
    tokens = sum(map(len, set(layout.source_ids)))  # equal chunks are read once
    prefix = encode_prefix(scoring_model)  # a state's size is proportional to its tokens
    states = tokens * prefix.kept().nbytes // prefix.tokens
    return {
        "chunks": len(prompt.chunks),
        "tokens": tokens,
        **{case: peaks[case].peak / MB for case in (JOINT, DEFAULT, KEPT) if case in peaks},
        "states": states / MB,
        "states a chunk": states / MB / len(prompt.chunks),
        "still held after": peaks[DEFAULT].growth / MB,
    }


def measure(
    options: SharedOptions, case: str, prompt: Prompt, reference: Sequence[Path] = ()
) -> CallPeak:
    """Measure one case on one prompt in a fresh process.

    Args:
        options: Say which model.
        case: `DEFAULT`, `JOINT`, `KEPT` (a store in memory keeps the states, which count),
            `REMOVALS` or `REFERENCE`.
        prompt: What is read.
        reference: Folders of the reference implementation.

    Raises:
        AT2Error: If the process was killed.
    """
    os.environ.update(_GIVE_BACK)  # read by the fresh process alone, as it starts
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure_here, options, case, prompt, reference).result()
        except BrokenProcessPool as error:
            raise AT2Error(
                f"the process that measured {case!r} with {len(prompt.chunks)} chunks was killed, "
                "most likely for want of memory; free some, or leave this case out"
            ) from error


def measure_here(
    options: SharedOptions, case: str, prompt: Prompt, reference: Sequence[Path] = ()
) -> CallPeak:
    """Load the model, make a short call, and measure one on the prompt, in this process."""
    model = options.load()
    for parameter in model.model.parameters():
        parameter.detach().sum()  # so that all of it is resident
    run = _case(model, case, [WARM_UP, prompt], reference)
    run(0)
    return peak_of(lambda: run(1))


def peak_of(call: Callable[[], object]) -> CallPeak:
    """Measure a call in this process, its result included."""
    process = psutil.Process()
    gc.collect()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_INTERVAL):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    peak = max(peak, process.memory_info().rss)
    del result
    gc.collect()
    return CallPeak(peak - before, process.memory_info().rss - before)


def _case(
    model: LoadedModel, case: str, prompts: Sequence[Prompt], reference: Sequence[Path]
) -> Case:
    if case == REMOVALS:
        return removal_cases(model, prompts, seed=SEED)[1]  # one mask at a time takes the least
    if case == REFERENCE:
        attribute = load_reference(model, reference)
        return lambda index: attribute(prompts[index])
    cache = ChunkCache(max_memory_bytes=NO_LIMIT) if case == KEPT else None
    return prune_case(
        make_pruner(model, JOINT if case == JOINT else DEFAULT, chunk_cache=cache), prompts
    )


if __name__ == "__main__":
    main()
