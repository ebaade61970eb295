"""`Workers`: what their threads leave behind. Calls that wait or are abandoned: `test_aprune`."""

from __future__ import annotations

import asyncio
import gc
import platform
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
import pytest
import torch

from at2_rag.progress import Stopwatch
from at2_rag.pruning.workers import CORES_VARIABLE, Workers, most_readers
from at2_rag.wanted import check_wanted

MB = 1e6


def resident() -> float:
    """Return the memory of this process, in MB."""
    return float(psutil.Process().memory_info().rss / MB)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others keep what is freed")
@pytest.mark.parametrize("busy", [False, True], ids=["no call comes", "calls come"])
def test_freed_memory_goes_back_to_the_system(busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if busy:  # for so long that the thread doesn't end
        monkeypatch.setattr("at2_rag.pruning.workers._IDLE_SECONDS", 60)
        monkeypatch.setattr("at2_rag.pruning.workers._RELEASE_SECONDS", 1)
    workers, kept = Workers(lambda: 1), []

    def work() -> int:
        pieces = [torch.ones(2**14) for _ in range(2000)]  # 131 MB, each too small to be mapped
        kept.append(pieces[-1])  # keeps the heap from shrinking by itself
        return threading.get_ident()

    gc.collect()
    before = resident()
    with ThreadPoolExecutor(1) as threads:
        number = threads.submit(workers.call, work, Stopwatch()).result(60)
        assert resident() - before > 60, "malloc keeps most of it for the thread"
        if busy:
            time.sleep(1.1)
            again = threads.submit(workers.call, threading.get_ident, Stopwatch()).result(60)
            assert again == number
    if not busy:
        until(lambda: all(thread.ident != number for thread in threading.enumerate()), 30)
    until(lambda: resident() - before < 30)
    workers.abandon()


# --- errors and cancelled calls --------------------------------------------------------------


class Held:
    """Stands for the tensors of a reading."""


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.usefixtures("no_collection")
def test_what_a_failed_call_held_is_freed() -> None:
    workers, held = Workers(lambda: 1), []

    def work() -> None:
        one = Held()
        held.append(weakref.ref(one))
        raise ValueError

    def ask() -> None:
        with suppress(ValueError):
            workers.call(work, Stopwatch())

    with ThreadPoolExecutor(1) as threads:
        threads.submit(ask).result(60)
    until(lambda: held[0]() is None)


@pytest.mark.usefixtures("no_collection")
async def test_what_a_cancelled_call_held_is_freed() -> None:
    outer, inner, held = Workers(lambda: 1), Workers(lambda: 1), []

    def work() -> None:
        one = Held()
        held.append(weakref.ref(one))
        while True:
            check_wanted()
            time.sleep(0.01)

    task = asyncio.create_task(outer.run(lambda: inner.call(work, Stopwatch())))
    while not held:
        await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    del task
    end = time.monotonic() + 10
    while held[0]() is not None:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers(lambda: 1, max_pending=1)
    with ThreadPoolExecutor(1) as threads:
        caller = threads.submit(threading.get_ident).result(60)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            call: Any = (workers.call, threading.get_ident, Stopwatch())
            assert threads.submit(*call).result(60) == caller, "it reads for itself"
            for _ in "12":  # no call is left behind that counts as pending
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    asyncio.run(workers.run(threading.get_ident))
        assert threads.submit(*call).result(60) != caller


@pytest.mark.parametrize(("threads", "readers"), [(1, 7), (2, 4), (8, 1)])
def test_a_variable_says_how_many_cores_to_use(
    monkeypatch: pytest.MonkeyPatch, threads: int, readers: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setenv(CORES_VARIABLE, "6")
    assert most_readers() == readers
    for other in ("", "0", "six"):
        monkeypatch.setenv(CORES_VARIABLE, other)
        there = most_readers()
        monkeypatch.delenv(CORES_VARIABLE)
        assert most_readers() == there
