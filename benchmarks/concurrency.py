"""One pruner called by many threads at once, and by an event loop that has other things to do."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from measured_model import DEFAULT, MeasuredModel
from report_files import MB, in_milliseconds, verdict
from speed_prompts import Prompt

from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache
from at2_rag_evals.resident_memory import resident
from at2_rag_evals.tables import Cell, Table

LEAST_THROUGHPUT = 0.9
"""Least throughput of many callers, as a share of one caller's."""

_TICK = 0.001


@dataclass(frozen=True, slots=True)
class CallersTime:
    """What a number of threads got out of one pruner.

    Attributes:
        callers: The threads.
        calls: Calls of all of them.
        per_second: Calls a second.
        p50: Seconds that half of the calls took at most.
        p95: The same for 95 %.
        p99: The same for 99 %.
        wrong: Calls whose scores were not those of a single caller.
        grown: Bytes of resident memory after all calls less those after the first half, when every
            thread has the room it needs.
    """

    callers: int
    calls: int
    per_second: float
    p50: float
    p95: float
    p99: float
    wrong: int
    grown: int


def time_callers(
    measured: MeasuredModel, prompts: Sequence[Prompt], callers: Sequence[int], *, calls: int
) -> list[CallersTime]:
    """Let threads call one pruner with ready states, so many calls in all.

    Args:
        measured: The model.
        prompts: What is asked, in turn.
        callers: Numbers of threads.
        calls: Calls for each number of threads.
    """
    pruner = measured.pruner(DEFAULT, chunk_cache=ChunkCache())
    expected = [_scores(pruner, prompt) for prompt in prompts]
    return [_time_callers(pruner, prompts, expected, number, calls) for number in callers]


def _time_callers(
    pruner: AT2Pruner,
    prompts: Sequence[Prompt],
    expected: Sequence[list[float]],
    callers: int,
    calls: int,
) -> CallersTime:
    def call(number: int) -> tuple[float, bool]:
        place = number % len(prompts)
        start = time.perf_counter()
        found = _scores(pruner, prompts[place])
        return time.perf_counter() - start, found == expected[place]

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(2 * callers)))  # threads and what they keep are there
        start = time.perf_counter()
        done = list(pool.map(call, range(calls // 2)))
        half = resident()
        done += pool.map(call, range(calls // 2, calls))
        elapsed = time.perf_counter() - start
        grown = resident() - half
    cuts = statistics.quantiles([seconds for seconds, _ in done], n=100, method="inclusive")
    wrong = sum(not right for _, right in done)
    return CallersTime(callers, calls, calls / elapsed, cuts[49], cuts[94], cuts[98], wrong, grown)


def longest_wait(measured: MeasuredModel, prompts: Sequence[Prompt], *, calls: int) -> float:
    """Return the longest that an event loop was held up while it awaited so many calls, seconds.

    A task that only sleeps for a millisecond at a time runs beside them.
    """
    pruner = measured.pruner(DEFAULT, chunk_cache=ChunkCache())
    for prompt in prompts:
        _scores(pruner, prompt)

    async def watch(waits: list[float]) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(_TICK)
            waits.append(time.perf_counter() - start - _TICK)

    async def run() -> float:
        waits: list[float] = []
        watcher = asyncio.create_task(watch(waits))
        asked = [prompts[number % len(prompts)] for number in range(calls)]
        await asyncio.gather(*(pruner.aprune(own.query, own.chunks, top_k=3) for own in asked))
        watcher.cancel()
        return max(waits)

    return asyncio.run(run())


def concurrency_record(times: Sequence[CallersTime], wait: float) -> dict[str, Any]:
    """Return the figures as JSON-ready values; throughput is held against the fewest callers'."""
    base = min(times, key=lambda own: own.callers)
    rows = []
    for own in times:
        share = own.per_second / base.per_second
        met = share >= LEAST_THROUGHPUT and not own.wrong
        rows.append({**asdict(own), "throughput": share, "met": met})
    return {"callers": rows, "limit": LEAST_THROUGHPUT, "event_loop_wait": wait}


def concurrency_table(record: dict[str, Any]) -> Table:
    """Lay out latency and throughput by the number of callers."""
    names = ("callers", "calls a second", "throughput", "p50", "p95", "p99", "wrong", "grown MB")
    rows = [
        [
            Cell(str(own["callers"])),
            Cell(f"{own['per_second']:.1f}"),
            Cell(f"{own['throughput']:.2f} ({record['limit']} {verdict(own['met'])})"),
            *(Cell(in_milliseconds(own[name])) for name in ("p50", "p95", "p99")),
            Cell(str(own["wrong"])),
            Cell(f"{own['grown'] / MB:.1f}"),
        ]
        for own in record["callers"]
    ]
    title = (
        "Callers of one pruner, ready states, ms; an event loop waited at most "
        f"{in_milliseconds(record['event_loop_wait'])}"
    )
    return Table(title, [Cell(name) for name in names], rows)


def _scores(pruner: AT2Pruner, prompt: Prompt) -> list[float]:
    return [own.score for own in pruner.score(prompt.query, prompt.chunks)]
