"""How the time of a call grows with the number of chunks, cold and with ready states."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from measured_model import DEFAULT, MeasuredModel
from report_files import in_milliseconds, verdict
from speed_prompts import Prompt, PromptSet

from at2_rag.states.store import ChunkCache
from at2_rag_evals.tables import Cell, Table

FIT_FROM = 50
"""Sizes below this don't count to the exponent, if there are two others."""

LIMIT = 1.05
"""The exponent of the time in the number of chunks that must not be exceeded."""


@dataclass(frozen=True, slots=True)
class SizeTime:
    """Median seconds of a call with so many chunks.

    Attributes:
        chunks: The chunks.
        tokens: Their tokens, as the pruner counts them.
        cold: Every chunk read in the call.
        warm: The chunks' states in a store's memory.
    """

    chunks: int
    tokens: int
    cold: float
    warm: float


def time_sizes(
    measured: MeasuredModel, prompts: PromptSet, sizes: Sequence[int], *, repeats: int, seed: int
) -> Iterator[SizeTime]:
    """Time calls of several sizes and yield the medians when all have run.

    Args:
        measured: The model.
        prompts: What is read.
        sizes: Numbers of chunks.
        repeats: Rounds; each has every size cold and warm, in a new order.
        seed: Of the orders.
    """
    asked = {size: prompts.of_size(size) for size in sorted(set(sizes))}
    store = ChunkCache(max_memory_bytes=2**40)
    cold, warm = (measured.pruner(DEFAULT, chunk_cache=own) for own in (None, store))
    warm.index(asked[max(asked)].chunks)  # the smaller ones have some of the same
    tokens = {}
    for size, prompt in asked.items():
        tokens[size] = warm.prune(prompt.query, prompt.chunks, top_k=3).tokens_before
    cold.prune(asked[min(asked)].query, asked[min(asked)].chunks[:1], top_k=1)
    seconds: dict[tuple[int, str], list[float]] = {}
    order = random.Random(seed)
    for _ in range(repeats):
        runs = [(size, kind) for size in asked for kind in ("cold", "warm")]
        order.shuffle(runs)
        for size, kind in runs:
            pruner = cold if kind == "cold" else warm
            seconds.setdefault((size, kind), []).append(_timed(pruner.prune, asked[size]))
    for size in asked:
        medians = {kind: statistics.median(seconds[size, kind]) for kind in ("cold", "warm")}
        yield SizeTime(size, tokens[size], **medians)


def scaling_record(times: Sequence[SizeTime]) -> dict[str, Any]:
    """Return times and exponents as JSON-ready values; no exponents for fewer than two sizes."""
    record: dict[str, Any] = {"times": [asdict(own) for own in times]}
    large = [own for own in times if own.chunks >= FIT_FROM]
    times = large if len(large) > 1 else times
    if len(times) > 1:
        exponents = {kind: exponent(times, kind) for kind in ("cold", "warm")}
        record["exponents"] = {
            kind: {"value": round(value, 3), "limit": LIMIT, "met": value <= LIMIT}
            for kind, value in exponents.items()
        }
    return record


def exponent(times: Sequence[SizeTime], kind: str) -> float:
    """Return the slope of the logarithm of the time over that of the number of chunks."""
    return statistics.linear_regression(
        [math.log(own.chunks) for own in times],
        [math.log(getattr(own, kind)) for own in times],
    ).slope


def scaling_table(record: dict[str, Any]) -> Table:
    """Lay out times by size, with the exponents below."""
    rows = [
        [
            Cell(str(own["chunks"])),
            Cell(f"{own['tokens']:,}"),
            *(Cell(in_milliseconds(own[kind])) for kind in ("cold", "warm")),
        ]
        for own in record["times"]
    ]
    exponents = record.get("exponents")
    if exponents:
        told = [
            Cell(f"{own['value']:.3f} ({own['limit']} {verdict(own['met'])})")
            for own in exponents.values()
        ]
        rows.append([Cell("exponent"), Cell(""), *told])
    header = [Cell(text) for text in ("chunks", "tokens", "cold", "warm")]
    return Table("Time of a call by its chunks, together + apart, ms", header, rows)


def _timed(prune: Callable[..., object], prompt: Prompt) -> float:
    start = time.perf_counter()
    prune(prompt.query, prompt.chunks, top_k=3)
    return time.perf_counter() - start
