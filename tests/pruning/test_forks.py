"""Forked children, as those of gunicorn --preload, prune as their parent did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import at2_rag

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SECONDS = 20
"""In which a child has to be through."""

SCRIPT = """
import asyncio, os, signal, sys, threading, time
import torch
from at2_rag import ChunkCache
from tests.tiny_models import tiny_model
from tests.tiny_weights import tiny_pruner

torch.set_num_threads(2)
query, chunks = "who wrote Emma?", [f"{number} wrote the novel " * 60 for number in range(8)]
caches = [None, ChunkCache(max_memory_bytes=2**17), ChunkCache(sys.argv[1])]
pruners = [tiny_pruner(chunk_cache=cache) for cache in caches]

def answers():
    return [[one.score for one in pruner.score(query, chunks)] for pruner in pruners]

def work():
    while True:
        answers()

expected = answers()
fresh = tiny_pruner()  # whose prefix is read while it is forked
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
threading.Thread(target=lambda: fresh.score(query, chunks), daemon=True).start()

class Stuck(dict):  # a cache that holds all threads of its pruner for ever, in the parent
    parent = os.getpid()
    def get(self, key):
        if os.getpid() == self.parent:
            time.sleep(1e6)

stuck = tiny_pruner(chunk_cache=Stuck())
for _ in range(os.cpu_count() + 1):
    threading.Thread(target=lambda: stuck.score(query, chunks), daemon=True).start()

def child():
    assert torch.get_num_threads() == 1
    again = answers()
    assert all(abs(a - b) < 1e-4 for x, y in zip(again, expected) for a, b in zip(x, y))
    fresh.score(query, chunks)
    reader = threading.Thread(target=lambda: stuck.score(query, chunks), daemon=True)
    reader.start()
    reader.join(30)
    assert not reader.is_alive()
    threads = [threading.Thread(target=answers) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    asyncio.run(fresh.aprune(query, chunks, top_k=1))

for number in range(6):
    time.sleep(.01 * number)
    pid = os.fork()
    if not pid:
        signal.alarm(int(sys.argv[2]))
        try:
            child()
        except BaseException as error:
            print(repr(error))
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "a child hung or failed"
assert torch.get_num_threads() == 2
os._exit(0)
"""


def test_children_forked_under_load_prune(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=8 * SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_locks_are_made_anew_after_a_fork() -> None:
    lock = re.compile(
        r"threading\.(R?Lock|Condition|(Bounded)?Semaphore|Barrier)\(|@cached_property"
    )
    root = Path(at2_rag.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    with_locks = {path for path, source in sources.items() if lock.search(source)}
    renewing = {path for path, source in sources.items() if "call_after_fork(" in source}
    training = {path for path in sources if "training" in path.parts}  # forks no process
    assert with_locks - training <= renewing
    assert len(with_locks - training) >= 3
