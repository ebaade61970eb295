"""Peak memory of at2_rag's calls above the loaded model.

python benchmarks/memory.py
python benchmarks/memory.py --data FILE.jsonl.gz --chunks 10 --chunks 50 --output FOLDER

Each case runs in a fresh process, which has loaded the whole model and touched all of it, and has
made a short call (lazy imports, thread pools). The peak is the most resident memory while the call
runs, read every millisecond, less that just before it. glibc is told to give large blocks back as
soon as they are freed: otherwise a peak says as much of the allocator as of the call. That costs
time, so no times are taken here. 1 MB is 10^6 bytes.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import psutil
from cases import REFERENCE, REMOVALS, Ablations, prune_case, reference_case
from models import DEFAULT, JOINT, Subject, make_pruner, prompt_builder, weights_record
from prompts import CHUNKS, WARM_UP, Prompt, joint_tokens
from reference_at2 import ReferenceAT2
from report import POSITIVE, Row, SharedOptions, ablation_options, shared_options
from timing import Case, exponent

from at2_rag.errors import AT2Error
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.chunk_states import encode_prefix
from at2_rag.states.store import ChunkCache

SEED = 0
KEPT = f"{DEFAULT}, states kept"
MASKS_AT_A_TIME = 1
MB = 1e6

_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_INTERVAL = 0.001


@dataclass(frozen=True, slots=True)
class CallPeak:
    """What one call took.

    Attributes:
        peak: Bytes at the peak above what the process held before.
        growth: Bytes the process still held after the call and its result were gone.
    """

    peak: int
    growth: int


@click.command("memory", context_settings={"show_default": True})
@shared_options
@ablation_options
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
    subject = shared.subject
    model = subject.load()
    layouts = prompt_builder(model)
    prompts = shared.prompts(model, 1)
    weights = weights_record(model, (DEFAULT, JOINT))
    report = shared.report("memory", "Peak memory", model, seed=SEED, head_weights=weights)
    rows: list[Row] = []
    for size in chunks:
        prompt = prompts.of_size(size)
        cases = [DEFAULT, KEPT, *([JOINT] if joint_tokens(layouts, prompt) else [])]
        peaks = {case: measure(subject, case, prompt) for case in cases}
        rows.append(size_row(model, prompt, peaks))
    title = "Peak of a call above the loaded model, MB"
    report.add(title, rows, f"Chunks from {prompts.source}.", *growth_notes(rows))
    others = [REMOVALS] * ablations + [REFERENCE] * bool(reference)
    if others:
        prompt = prompts.of_size(CHUNKS)
        rows = [
            {"case": case, "peak": measure(subject, case, prompt, reference).peak / MB}
            for case in (DEFAULT, *others)
        ]
        report.add(f"Peak of other ways over {CHUNKS} chunks, MB", rows)


def size_row(model: LoadedModel, prompt: Prompt, peaks: Mapping[str, CallPeak]) -> Row:
    """Return the peaks of one prompt in MB, and what the states of its chunks take."""
    tokens, states = chunk_states_size(model, prompt)
    row: dict[str, int | float] = {"chunks": len(prompt.chunks), "tokens": tokens}
    row |= {case: peaks[case].peak / MB for case in (JOINT, DEFAULT, KEPT) if case in peaks}
    return {
        **row,
        "states": states / MB,
        "states a chunk": states / MB / len(prompt.chunks),
        "still held after": peaks[DEFAULT].growth / MB,
    }


def chunk_states_size(model: LoadedModel, prompt: Prompt) -> tuple[int, int]:
    """Return the tokens of the prompt's chunks and the bytes of their states, equal ones once."""
    scoring_model = make_pruner(model, DEFAULT).scoring_model
    layout = scoring_model.prompts.independent(prompt.query, prompt.chunks)
    tokens = sum(map(len, set(layout.source_ids)))
    prefix = encode_prefix(scoring_model)  # a state's size is proportional to its tokens
    return tokens, tokens * prefix.nbytes // prefix.tokens


def growth_notes(rows: Sequence[Row]) -> list[str]:
    """Return the exponent of the default's peak in the number of chunks, in words."""
    points = [(row["chunks"], row[DEFAULT]) for row in rows]
    if len(points) < 2:
        return []
    sizes, peaks = zip(*points, strict=True)
    return [
        f"From {sizes[0]} to {sizes[-1]} chunks, the peak of {DEFAULT!r} grows with their number "
        f"to the power of {exponent(sizes, peaks):.2f}."
    ]


def measure(
    subject: Subject, case: str, prompt: Prompt, reference: Sequence[Path] = ()
) -> CallPeak:
    """Measure one case on one prompt in a fresh process.

    Args:
        subject: The model.
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
            return pool.submit(measure_here, subject, case, prompt, reference).result()
        except BrokenProcessPool as error:
            raise AT2Error(
                f"the process that measured {case!r} with {len(prompt.chunks)} chunks was killed, "
                "most likely for want of memory; free some, or leave this case out"
            ) from error


def measure_here(
    subject: Subject, case: str, prompt: Prompt, reference: Sequence[Path] = ()
) -> CallPeak:
    """Load the model, make a short call, and measure one on the prompt, in this process."""
    model = subject.load()
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
        return Ablations.of(model, prompts, seed=SEED).case(MASKS_AT_A_TIME)
    if case == REFERENCE:
        return reference_case(ReferenceAT2.load(model, reference), prompts)
    cache = ChunkCache(max_memory_bytes=2**40) if case == KEPT else None
    pruner = make_pruner(model, JOINT if case == JOINT else DEFAULT, chunk_cache=cache)
    return prune_case(pruner, prompts)


if __name__ == "__main__":
    main()
