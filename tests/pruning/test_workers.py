"""`Workers`: what their threads leave behind. Calls that wait or are abandoned: `test_aprune`."""

from __future__ import annotations

import gc
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch

from at2_rag.progress import Stopwatch
from at2_rag.pruning.workers import Workers

MB = 1e6


def resident() -> float:
    """Return the memory of this process, in MB."""
    return float(psutil.Process().memory_info().rss / MB)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is given back to glibc")
def test_freed_memory_goes_back_to_the_system_when_no_call_comes() -> None:
    workers, kept = Workers(lambda: 1), []

    def work() -> int:
        pieces = [torch.ones(2**14) for _ in range(2000)]  # 131 MB, each too small to be mapped
        kept.append(pieces[-1])  # keeps the heap from shrinking by itself
        return threading.get_ident()

    gc.collect()
    before = resident()
    with ThreadPoolExecutor(1) as threads:
        number = threads.submit(workers.call, work, Stopwatch()).result(60)
    assert resident() - before > 100, "malloc keeps it for the thread"
    end = time.monotonic() + 30
    while any(thread.ident == number for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert resident() - before < 30
