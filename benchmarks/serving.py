"""What `at2-rag serve` answers under load: throughput, latency, overload and memory.

python benchmarks/serving.py --threads 1
python benchmarks/serving.py --threads 1 --data FILE.jsonl.gz --calls 400 --minutes 10
python benchmarks/serving.py --url http://127.0.0.1:8080

Everything runs on this machine, over the loopback interface, against a server process that the
script starts and ends, but for --url. README.md beside this file says more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import click
import httpx
import numpy as np
import psutil
from prompts import CHUNKS, Prompt
from report import POSITIVE, Report, Row, SharedOptions, shared_options

CALLERS = 8
OVERLOAD = 10  # times the callers that the server has room for
START_SECONDS = 120.0
MB = 1e6


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a client sees it."""

    status: int
    seconds: float


@click.command("serving", context_settings={"show_default": True})
@shared_options
@click.option("--calls", type=POSITIVE, default=80, help="Requests of each row.")
@click.option("--minutes", type=float, default=0.2, help="Minutes of the overload.")
@click.option("--head-weights", help="Name of shipped head weights, or a folder.")
@click.option("--url", help="Load the server that runs there, say on Ray, and overload none.")
def main(
    *,
    shared: SharedOptions,
    calls: int,
    minutes: float,
    head_weights: str | None,
    url: str | None,
) -> None:
    """Load a server, and overload it."""
    model = shared.load()
    prompts = shared.prompts(model, calls).prompts
    report = Report("Serving", shared, model, calls=calls, minutes=minutes)
    title = f"Requests of {CHUNKS} chunks"
    if url is not None:
        report.add(title, list(_loaded(url, prompts, calls, "the server's own")))
        return
    rows: list[Row] = []
    weights = () if head_weights is None else ("--head-weights", head_weights)
    for name, options in (("batched", ()), ("one at a time", ("--max-batch-tokens", "1"))):
        with served(shared, *weights, *options) as (url, _):
            rows += _loaded(url, prompts, calls, name)
    report.add(title, rows)
    with served(shared, *weights, "--max-requests", str(CALLERS)) as (url, process):
        send(url, prompts, callers=CALLERS, calls=calls)
        report.add("Overload", list(_overloaded(url, process, prompts, minutes)))


@contextmanager
def served(shared: SharedOptions, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server process; yield its address and itself."""
    dtype = () if shared.dtype is None else ("--dtype", shared.dtype)
    command = [sys.executable, "-m", "at2_rag", "serve", "--port", "0", "--model", shared.model]
    environment = {**os.environ, "OMP_NUM_THREADS": str(shared.threads)}
    process = subprocess.Popen(
        [*command, *dtype, *options], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "Uvicorn running on " in line)
        url = line.partition("running on ")[2].split()[0]
        threading.Thread(target=lambda: list(process.stderr or ()), daemon=True).start()
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def send(
    url: str, prompts: Sequence[Prompt], *, callers: int, calls: int, salt: str = ""
) -> list[Call]:
    """Send so many requests, by so many callers at a time; `salt` makes the chunks new."""

    def call(number: int) -> Call:
        prompt = prompts[number % len(prompts)]
        documents = [f"{salt and f'{salt}{number} '}{chunk.rendered}" for chunk in prompt.chunks]
        start = time.perf_counter()
        body = {"query": prompt.query, "documents": documents}
        status = client.post("/v2/rerank", json=body).status_code
        return Call(status, time.perf_counter() - start)

    limits = httpx.Limits(max_connections=callers)
    with httpx.Client(base_url=url, timeout=600, limits=limits) as client:
        with ThreadPoolExecutor(callers) as threads:
            return list(threads.map(call, range(calls)))


def _loaded(url: str, prompts: Sequence[Prompt], calls: int, batches: str) -> Iterator[Row]:
    """Yield a row for chunks that are new and known, and for one caller and several."""
    for state in ("cold", "warm"):
        for callers in (1, CALLERS):
            salt = f"{callers} " if state == "cold" else ""
            start = time.perf_counter()
            done = send(url, prompts, callers=callers, calls=calls, salt=salt)
            seconds = time.perf_counter() - start
            case = {"batches": batches, "cache": state, "callers": callers}
            yield {**case, **_figures(done, seconds)}


def _figures(done: Sequence[Call], seconds: float) -> Row:
    accepted = [1000 * call.seconds for call in done if call.status == 200]
    p50, p95, p99 = np.percentile(accepted, [50, 95, 99]) if accepted else (np.nan,) * 3
    statuses = Counter(call.status for call in done)
    return {
        "answered a second": len(accepted) / seconds,
        "p50 ms": float(p50),
        "p95 ms": float(p95),
        "p99 ms": float(p99),
        "statuses": ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())),
    }


def _overloaded(
    url: str, process: psutil.Process, prompts: Sequence[Prompt], minutes: float
) -> Iterator[Row]:
    """Send ten times what the server has room for, in four parts; yield a row for each."""
    callers = OVERLOAD * CALLERS
    for part in range(4):
        start, done = time.perf_counter(), list[Call]()
        while time.perf_counter() - start < 60 * minutes / 4:
            done += send(url, prompts, callers=callers, calls=callers)
        figures = _figures(done, time.perf_counter() - start)
        yield {"part": part + 1, **figures, "memory, MB": process.memory_info().rss / MB}


if __name__ == "__main__":
    main()
