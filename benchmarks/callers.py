"""One pruner called by many threads at once, and by an event loop that has other things to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
from prompts import Prompt
from report import Row

from at2_rag.pruner import AT2Pruner

_TICK = 0.001


def caller_rows(
    pruner: AT2Pruner, prompts: Sequence[Prompt], numbers: Sequence[int], *, calls: int
) -> Iterator[Row]:
    """Let threads call one pruner with a warm cache, and yield a row for each number of threads.

    `calls` are those of all threads together, about the prompts in turn.
    """
    expected = [_scores(pruner, prompt) for prompt in prompts]
    process, first = psutil.Process(), None

    def call(number: int) -> tuple[float, bool]:
        index = number % len(prompts)
        start = time.perf_counter()
        scores = _scores(pruner, prompts[index])
        return time.perf_counter() - start, scores == expected[index]

    for callers in numbers:
        start = time.perf_counter()
        with ThreadPoolExecutor(callers) as threads:
            done = list(threads.map(call, range(calls // 2)))
            resident = process.memory_info().rss  # each thread has the memory it needs by now
            done += threads.map(call, range(calls // 2, calls))
            grown = process.memory_info().rss - resident
        per_second = calls / (time.perf_counter() - start)
        first = first or per_second
        p50, p95, p99 = np.percentile([1000 * seconds for seconds, _ in done], [50, 95, 99])
        yield {
            "callers": callers,
            "calls a second": per_second,
            "throughput": per_second / first,
            "p50 ms": float(p50),
            "p95 ms": float(p95),
            "p99 ms": float(p99),
            "wrong scores": sum(not right for _, right in done),
            "growth in the second half, MB": grown / 1e6,
        }


def longest_wait(pruner: AT2Pruner, prompts: Sequence[Prompt], *, calls: int) -> float:
    """Return the longest an event loop was held up while it awaited so many calls, in seconds.

    A task that only sleeps for a millisecond at a time runs beside them.
    """

    async def watch(waits: list[float]) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(_TICK)
            waits.append(time.perf_counter() - start - _TICK)

    async def run() -> float:
        waits: list[float] = []
        watcher = asyncio.create_task(watch(waits))
        requests = [prompts[number % len(prompts)] for number in range(calls)]
        await asyncio.gather(*(pruner.aprune(p.query, p.chunks, top_k=3) for p in requests))
        watcher.cancel()
        return max(waits)

    return asyncio.run(run())


def _scores(pruner: AT2Pruner, prompt: Prompt) -> list[float]:
    return [scored.score for scored in pruner.score(prompt.query, prompt.chunks)]
