"""What `at2-rag serve` answers under load: throughput, latency, overload, memory, lost clients.

python benchmarks/serving.py --threads 1
python benchmarks/serving.py --threads 1 --data FILE.jsonl.gz --calls 400 --minutes 10
python benchmarks/serving.py --threads 1 --url http://127.0.0.1:8080

Everything runs on this machine, over the loopback interface, against a server process that the
script starts and ends, but for --url. README.md beside this file says more.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from types import MappingProxyType
from urllib.parse import urlsplit

import click
import httpx
import numpy as np
import psutil
from prompts import CHUNKS, Prompt
from report import POSITIVE, Report, Row, SharedOptions, shared_options

CALLERS = 8
PROMPTS = 8  # whose chunks a server keeps in memory
OVERLOAD = 10  # times the callers that the server has room for
ROUNDS = 5  # of callers that leave
START_SECONDS = 120.0
TICK = 0.1  # seconds; a process that takes less than `IDLE` of one is idle
IDLE = 0.2
MB = 1e6


UNBATCHED = "--max-batch-tokens", "1"
ONE_READER = {"PYTHON_CPU_COUNT": "1", "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
SERVERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "batched": ((), {}),
    "single requests side by side": (UNBATCHED, {}),
    "one request at a time, on all cores": (UNBATCHED, ONE_READER),
}
"""Options and environment variables of the servers that are compared."""

PATH, JSON = "/v2/rerank", {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a client sees it."""

    status: int
    seconds: float


@click.command("serving", context_settings={"show_default": True})
@shared_options
@click.option("--calls", type=POSITIVE, default=80, help="Requests of each row.")
@click.option("--minutes", type=float, default=0.2, help="Minutes of the overload.")
@click.option("--also", multiple=True, help="Also a server with options as '--batch-delay 0.05'.")
@click.option("--head-weights", help="Name of shipped head weights, or a folder.")
@click.option("--url", help="Load the server that runs there, say on Ray, and overload none.")
def main(
    *,
    shared: SharedOptions,
    calls: int,
    minutes: float,
    also: tuple[str, ...],
    head_weights: str | None,
    url: str | None,
) -> None:
    """Load a server, and overload it."""
    model = shared.load()
    prompts = shared.prompts(model, PROMPTS).prompts
    report = Report("Serving", shared, model, calls=calls, minutes=minutes)
    title = f"Requests of {CHUNKS} chunks"
    if url is not None:
        report.add(title, list(_loaded(url, prompts, calls, "that runs there", passes=4)))
        return
    rows: list[Row] = []
    weights = () if head_weights is None else ("--head-weights", head_weights)
    servers = {**SERVERS, **{options: (tuple(shlex.split(options)), {}) for options in also}}
    for name, (options, variables) in servers.items():
        with served(shared, *weights, *options, variables=variables) as (url, _):
            rows += _loaded(url, prompts, calls, name)
    report.add(title, rows)
    with served(shared, *weights, "--max-requests", str(CALLERS)) as (url, process):
        send(url, prompts, callers=CALLERS, calls=calls)
        report.add("Overload", list(_overloaded(url, process, prompts, minutes)))
    with served(shared, *weights) as (url, process):
        send(url, prompts, callers=CALLERS, calls=calls)
        report.add("Mass disconnect", list(_abandoned(url, process, prompts)))


@contextmanager
def served(
    shared: SharedOptions, *options: str, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server process; yield its address and itself."""
    dtype = () if shared.dtype is None else ("--dtype", shared.dtype)
    command = [sys.executable, "-m", "at2_rag", "serve", "--port", "0", "--model", shared.model]
    environment = {**os.environ, "OMP_NUM_THREADS": str(shared.threads), **variables}
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
        content = _body(prompts[number % len(prompts)], salt and f"{salt}{number} ")
        start = time.perf_counter()
        status = client.post(PATH, content=content, headers=JSON).status_code
        return Call(status, time.perf_counter() - start)

    limits = httpx.Limits(max_connections=callers)
    with httpx.Client(base_url=url, timeout=600, limits=limits) as client:
        with ThreadPoolExecutor(callers) as threads:
            return list(threads.map(call, range(calls)))


def _body(prompt: Prompt, salt: str) -> bytes:
    documents = [f"{salt}{chunk.rendered}" for chunk in prompt.chunks]
    return json.dumps({"query": prompt.query, "documents": documents}).encode()


def _loaded(
    url: str, prompts: Sequence[Prompt], calls: int, server: str, *, passes: int = 1
) -> Iterator[Row]:
    """Yield a row for chunks that are new and known, and for one caller and several.

    So that they are known, all are sent `passes` times before: a replica doesn't know what another
    one read.
    """
    run = secrets.token_hex(4)  # the server may know the chunks of an earlier run
    for state in ("cold", "warm"):
        if state == "warm":
            send(url, prompts, callers=CALLERS, calls=passes * len(prompts))
        for callers in (1, CALLERS):
            salt = f"{run} {callers} " if state == "cold" else ""
            start = time.perf_counter()
            done = send(url, prompts, callers=callers, calls=calls, salt=salt)
            seconds = time.perf_counter() - start
            case = {"server": server, "cache": state, "callers": callers}
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


def _abandoned(url: str, process: psutil.Process, prompts: Sequence[Prompt]) -> Iterator[Row]:
    """Let many callers leave before they are answered, and see what the server does afterwards.

    Yields a row for each round: how many left, the batches that the server still begins and the
    processor time that it still takes, and the latency of a request that comes when they have left,
    beside that of one to an idle server. All chunks are new.
    """
    for number in range(ROUNDS):
        [idle] = send(url, prompts, callers=1, calls=1, salt=f"idle {number} ")
        _leave(url, prompts, salt=f"first {number} ")
        [after] = send(url, prompts, callers=1, calls=1, salt=f"after {number} ")
        _processor_seconds_until_idle(process)
        before = _leave(url, prompts, salt=f"second {number} ")
        seconds = _processor_seconds_until_idle(process)
        yield {
            "round": number + 1,
            "callers that left": before["in flight"],
            "batches begun afterwards": _counts(url)["batches"] - before["batches"],
            "processor ms afterwards": 1000 * seconds,
            "next request, ms": 1000 * after.seconds,
            "of an idle server, ms": 1000 * idle.seconds,
        }


def _leave(url: str, prompts: Sequence[Prompt], *, salt: str) -> dict[str, int]:
    """Send requests and close the connections; return what the server counted just before."""
    callers, address = OVERLOAD * CALLERS, urlsplit(url)
    seen = _counts(url)["requests"] + callers
    connections = [HTTPConnection(address.netloc, timeout=600) for _ in range(callers)]
    for number, connection in enumerate(connections):
        body = _body(prompts[number % len(prompts)], f"{salt}{number} ")
        connection.request("POST", PATH, body, JSON)
    while (counts := _counts(url))["requests"] < seen:
        time.sleep(TICK / 10)
    for connection in connections:
        connection.close()
    return counts


def _counts(url: str) -> dict[str, int]:
    """Return a server's requests so far, those in flight, and the batches begun."""
    counts = {"requests": 0, "in flight": 0, "batches": 0}
    for line in httpx.get(f"{url}/metrics", timeout=600).text.splitlines():
        name, _, value = line.rpartition(" ")
        if name == "at2_rag_in_flight":
            counts["in flight"] = round(float(value))
        elif name == "at2_rag_batch_questions_count":
            counts["batches"] = round(float(value))
        elif name.startswith(f'at2_rag_requests_total{{path="{PATH}"'):
            counts["requests"] += round(float(value))
    counts["requests"] += counts["in flight"]
    return counts


def _processor_seconds_until_idle(process: psutil.Process) -> float:
    """Wait until a process has nothing to do; return the processor time that takes it."""

    def taken() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before, last = taken(), -1.0
    while (now := taken()) - last >= IDLE * TICK:
        last = now
        time.sleep(TICK)
    return now - before


if __name__ == "__main__":
    main()
