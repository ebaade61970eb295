"""Whether a pruner lasts: memory, threads and the end of the process under varied work.

python benchmarks/soak.py --threads 1
python benchmarks/soak.py --threads 1 --data FILE.jsonl.gz --calls 2000 --output FOLDER

Fails if memory grows by more than its limit, a call fails, a thread is left, or the process takes
too long to end. README.md beside this file says more.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

import click
import psutil
from models import DEFAULT, make_pruner
from prompts import Prompt, PromptSet
from report import POSITIVE, Report, Row, SharedOptions, shared_options

from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import DEFAULT_MEMORY_BYTES, ChunkCache
from at2_rag.text.chunks import Chunk

SEED = 0
CALLERS = 8
FEW = 3  # chunks, all of which are shortlisted
MOST_SECONDS = 2.0  # in which cancelled calls have to end, with the process or without
MB = 1e6


@click.command("soak", context_settings={"show_default": True})
@shared_options
@click.option("--calls", type=POSITIVE, default=2000, help="Calls of one thread, then of eight.")
@click.option("--awaited", type=POSITIVE, default=200, help="Calls awaited at once.")
@click.option("--max-growth", type=POSITIVE, default=150, help="MB; most growth of a part.")
def main(*, shared: SharedOptions, calls: int, awaited: int, max_growth: int) -> None:
    """Prune varied requests for long, and look at what is left."""
    model = shared.load()
    cache = ChunkCache()
    pruner = make_pruner(model, DEFAULT, chunk_cache=cache)
    prompts = shared.prompts(model, 8)
    draw = random.Random(SEED)
    requests = [_varied(prompts, draw) for _ in range(calls)]
    # What is allocated once: what threads need, and the cache.
    _in_threads(pruner, requests[: max(CALLERS, calls // 20)])
    _fill(pruner, cache, prompts)
    rows: list[Row] = []
    parts: dict[str, Callable[[], int]] = {
        "one thread": lambda: sum(_prune(pruner, prompt) for prompt in requests),
        f"{CALLERS} threads": lambda: _in_threads(pruner, requests),
        "awaited, half cancelled": lambda: asyncio.run(_awaited(pruner, requests, awaited, draw)),
    }
    for name, part in parts.items():
        before, threads, start = _memory(), threading.active_count(), time.perf_counter()
        done = part()
        seconds, left = time.perf_counter() - start, _left_after(MOST_SECONDS, threads)
        rows.append(
            {
                "part": name,
                "calls": done,
                "seconds": seconds,
                "before, MB": before,
                "growth, MB": _memory() - before,
                "threads left": left,
            }
        )
    report = Report("Soak", shared, model, seed=SEED, calls=calls, awaited=awaited)
    report.add("Varied calls", rows)
    plain, busy = seconds_to_end(shared, []), seconds_to_end(shared, requests[:CALLERS])
    ends: list[Row] = [{"calls": 0, "seconds": plain}, {"calls": CALLERS, "seconds": busy}]
    report.add("End of a process that cancels its calls", ends)
    failures = [
        f"{row['part']}: {row[what]} ({what})"
        for row in rows
        for what, limit in (("growth, MB", max_growth), ("threads left", 0))
        if float(str(row[what])) > limit
    ]
    if busy - plain > MOST_SECONDS:
        failures.append(f"the process took {busy - plain:.1f} s longer to end")
    if failures:
        raise click.ClickException("; ".join(failures))


def seconds_to_end(options: SharedOptions, requests: Sequence[Prompt]) -> float:
    """Return how long a process takes to end, once its loop has cancelled calls under way.

    Most of it is what Python needs to take torch and transformers down.
    """
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_leave, args=(options, requests, sender))
    process.start()
    left: float = receiver.recv()
    process.join()
    return time.time() - left


def _leave(options: SharedOptions, requests: Sequence[Prompt], sender: Any) -> None:
    pruner = make_pruner(options.load(), DEFAULT, chunk_cache=ChunkCache())

    async def start() -> None:
        calls = [asyncio.create_task(pruner.aprune(one.query, one.chunks)) for one in requests]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()

    asyncio.run(start())
    sender.send(time.time())


def _varied(prompts: PromptSet, draw: random.Random) -> Prompt:
    """Return one of the questions, perhaps longer, with 1 to 12 chunks cut at any tenth.

    So most are known from earlier calls, as in a service, in ever new combinations.
    """
    prompt = draw.choice(prompts.prompts)
    words = prompt.query.split()
    query = " ".join([*words, *draw.choices(words, k=draw.randrange(20))])
    chunks = draw.sample(prompts.pool, min(len(prompts.pool), draw.randint(1, 12)))
    return Prompt(query, tuple(map(_cut, chunks, (draw.randint(1, 10) / 10 for _ in chunks))))


def _fill(pruner: AT2Pruner, cache: ChunkCache, prompts: PromptSet) -> None:
    """Read all texts that requests may have, or as many as the cache holds."""
    texts = [_cut(chunk, tenths / 10) for chunk in prompts.pool for tenths in range(1, 11)]
    for start in range(0, len(texts), FEW):
        pruner.prune(prompts.prompts[0].query, texts[start : start + FEW], top_k=1)
        if cache.counts.memory_bytes > 0.95 * DEFAULT_MEMORY_BYTES:
            return


def _cut(chunk: Chunk, share: float) -> Chunk:
    return Chunk(chunk.text[: max(1, round(share * len(chunk.text)))], chunk.title)


def _prune(pruner: AT2Pruner, prompt: Prompt) -> int:
    by_sentence = len(prompt.chunks) % 5 == 0
    result = pruner.prune(
        prompt.query, prompt.chunks, top_k=3, unit="sentence" if by_sentence else "chunk"
    )
    assert len({one.index for one in (*result.kept, *result.dropped)}) == len(prompt.chunks)
    return 1


def _in_threads(pruner: AT2Pruner, requests: Sequence[Prompt]) -> int:
    with ThreadPoolExecutor(CALLERS) as threads:
        return sum(threads.map(lambda prompt: _prune(pruner, prompt), requests))


async def _awaited(
    pruner: AT2Pruner, requests: Sequence[Prompt], count: int, draw: random.Random
) -> int:
    """Await calls at once, cancel every other one at some time, and return how many were."""

    async def call(number: int) -> None:
        prompt = requests[number % len(requests)]
        task = asyncio.create_task(pruner.aprune(prompt.query, prompt.chunks, top_k=3))
        if number % 2:
            await asyncio.sleep(draw.random() * count / 50)
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    await asyncio.gather(*map(call, range(count)))
    return count


def _left_after(seconds: float, threads: int) -> int:
    """Return how many more threads there are than before, once they had time to end."""
    end = time.monotonic() + seconds
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)
    return max(0, threading.active_count() - threads)


def _memory() -> float:
    return float(psutil.Process().memory_info().rss / MB)


if __name__ == "__main__":
    main()
