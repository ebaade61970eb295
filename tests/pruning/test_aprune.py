"""`aprune`: beside other work of an event loop, cancelled, and too much of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest

from at2_rag import AT2Pruner, InputError, PrunerBusyError
from at2_rag.adapters import AdapterSettings, PrunerByName
from tests.tiny_models import tiny_model
from tests.tiny_weights import tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS = ["Jane Austen wrote Emma in 1815.", "The river flows.", "It spans the harbour."]
LAYERS = 20
SECONDS = 0.05
"""A layer's; a call takes one to two seconds."""


def slow_pruner(times: list[float] | None = None, **settings: Any) -> AT2Pruner:
    """Return a pruner whose layers after the first are slow; `times` gets when each of them ran."""

    def wait(*_: Any) -> None:
        time.sleep(SECONDS)
        if times is not None:
            times.append(time.perf_counter())

    model = tiny_model(num_hidden_layers=LAYERS)
    for layer in model.model.layers[1:]:
        layer.register_forward_pre_hook(wait)
    return tiny_pruner(model=model, **settings)


def threads_of_pruners() -> int:
    return sum(thread.name == "at2_rag" for thread in threading.enumerate())


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for a condition, and return how long it took."""
    start = time.perf_counter()
    while not condition():
        assert time.perf_counter() - start < seconds
        await asyncio.sleep(0.01)
    return time.perf_counter() - start


@pytest.fixture(scope="module")
def slow() -> AT2Pruner:
    return slow_pruner()


async def test_results_are_those_of_prune_and_calls_see_their_context() -> None:
    seen: list[str] = []
    name: ContextVar[str] = ContextVar("name", default="")

    def count(text: str) -> int:
        seen.append(name.get())
        return len(text)

    pruner = tiny_pruner(token_counter=count)
    pruner.index(CHUNKS)  # else the threads race to round what they read

    async def call(number: int) -> Any:
        name.set(f"call {number}")
        return await pruner.aprune(QUERY, CHUNKS[number:], top_k=2)

    results = await asyncio.gather(*(call(number % 3) for number in range(12)))
    assert set(seen) == {"call 0", "call 1", "call 2"}
    for number, result in enumerate(results):
        expected = pruner.prune(QUERY, CHUNKS[number % 3 :], top_k=2)
        assert (result.kept, result.dropped) == (expected.kept, expected.dropped)
    await until(lambda: threads_of_pruners() == 0, 10)
    with pytest.raises(InputError):
        await pruner.aprune(" ", CHUNKS, top_k=2)


async def test_the_loops_executor_is_free_while_calls_wait(slow: AT2Pruner) -> None:
    calls = [asyncio.create_task(slow.aprune(QUERY, CHUNKS, top_k=1)) for _ in range(60)]
    await asyncio.sleep(0.1)
    assert 1 <= threads_of_pruners() <= 8  # as many as may read, not one a call
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.run_in_executor(None, lambda: 7), 1) == 7
    assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), 1)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await until(lambda: threads_of_pruners() == 0, 10)  # they wait a second for other calls


async def test_adapters_load_the_default_model_beside_the_loops_executor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pruner = tiny_pruner()
    loads: list[str] = []

    def load(names: PrunerByName) -> AT2Pruner:
        if not loads:
            time.sleep(0.5)
        loads.append(threading.current_thread().name)
        return pruner

    monkeypatch.setattr("at2_rag.adapters._pruners", {})
    monkeypatch.setattr("at2_rag.adapters._new_pruner", load)
    calls = [asyncio.create_task(AdapterSettings().aloaded_pruner()) for _ in range(40)]
    await asyncio.sleep(0.1)
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.run_in_executor(None, lambda: 7), 0.3) == 7
    assert set(await asyncio.gather(*calls)) == {pruner}
    assert set(loads) == {"at2_rag"}


@pytest.mark.parametrize("reading", ["independent", "joint"])
async def test_cancelled_calls_stop_reading_soon(reading: Any) -> None:
    times: list[float] = []
    pruner = slow_pruner(times, reading=reading)
    calls = [asyncio.create_task(pruner.aprune(QUERY, CHUNKS, top_k=1)) for _ in range(20)]
    await asyncio.sleep(0.3)
    for call in calls:
        call.cancel()
    cancelled = time.perf_counter()
    await until(lambda: threads_of_pruners() == 0, 10)
    assert times and times[-1] - cancelled < 10 * SECONDS
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def test_a_cancelled_call_gives_up_its_turn(slow: AT2Pruner) -> None:
    reading = threading.Thread(target=slow.prune, args=(QUERY, CHUNKS), kwargs={"top_k": 1})
    calls = [asyncio.create_task(slow.aprune(QUERY, CHUNKS, top_k=1)) for _ in range(8)]
    await asyncio.sleep(0.1)
    reading.start()  # waits for a turn
    for call in calls:
        call.cancel()
    await until(lambda: not reading.is_alive(), 4 * LAYERS * SECONDS)


async def test_cancelling_one_call_leaves_the_others(slow: AT2Pruner) -> None:
    kept, lost = (asyncio.create_task(slow.aprune(QUERY, CHUNKS, top_k=1)) for _ in range(2))
    await asyncio.sleep(0.2)
    lost.cancel()
    assert (await kept).scored
    with suppress(asyncio.CancelledError):
        await lost


async def test_more_pending_calls_than_the_limit_are_refused() -> None:
    pruner = slow_pruner(max_pending=3)
    calls = [asyncio.create_task(pruner.aprune(QUERY, CHUNKS, top_k=1)) for _ in range(3)]
    await asyncio.sleep(0.1)
    with pytest.raises(PrunerBusyError, match="3 calls wait or run already, and max_pending is 3"):
        await pruner.aprune(QUERY, CHUNKS, top_k=1)
    calls.pop().cancel()
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(pruner.aprune(QUERY, CHUNKS, top_k=1)))
    await asyncio.sleep(0.1)
    assert not any(call.done() for call in calls)
    for call in calls:
        call.cancel()


async def test_a_limit_of_one_serves_one_call_after_another() -> None:
    pruner = tiny_pruner(max_pending=1)
    for _ in range(20):
        await pruner.aprune(QUERY, CHUNKS, top_k=1)
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(InputError, match="max_pending is .*; pass a whole number from 1"):
            tiny_pruner(max_pending=wrong)


async def test_a_busy_pruner_that_must_not_fail_keeps_everything() -> None:
    pruner = slow_pruner(max_pending=1, on_error="keep_all")
    call = asyncio.create_task(pruner.aprune(QUERY, CHUNKS, top_k=1))
    await asyncio.sleep(0.1)
    result = await pruner.aprune(QUERY, CHUNKS, top_k=1)
    assert result.chunks == tuple(CHUNKS) and not result.scored
    assert result.error is not None and result.error.startswith("PrunerBusyError")
    call.cancel()


async def test_a_refused_call_blocks_neither_the_loop_nor_itself() -> None:
    counted_by: list[str] = []

    def count(text: str) -> int:
        counted_by.append(threading.current_thread().name)
        time.sleep(0.5)
        return len(text)

    pruner = slow_pruner(max_pending=1, on_error="keep_all", token_counter=count)
    reading = asyncio.create_task(pruner.aprune(QUERY, CHUNKS, top_k=1))
    await until(lambda: len(counted_by) == 1, 1)
    await asyncio.sleep(0.5)
    refused = asyncio.create_task(pruner.aprune(QUERY, iter(CHUNKS), top_k=1))
    turns = 0
    while not refused.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5, "the loop had its turns while tokens were counted"
    assert not reading.done(), "it didn't wait for the call that reads"
    result = await refused
    assert result.chunks == tuple(CHUNKS)
    assert result.tokens_before == result.tokens_after == len("\n\n".join(CHUNKS))
    assert set(counted_by) == {"at2_rag"}
    with pytest.raises(InputError):
        await pruner.aprune(" ", CHUNKS, top_k=1)
    reading.cancel()


EXIT = """
import atexit, time
atexit.register(lambda: print(time.time() - end))  # called last; what follows is Python's teardown

import asyncio
from tests.pruning.test_aprune import CHUNKS, QUERY, slow_pruner

pruner = slow_pruner()

async def main():
    calls = [asyncio.create_task(pruner.aprune(QUERY, CHUNKS, top_k=1)) for _ in range(20)]
    await asyncio.sleep(.2)

asyncio.new_event_loop().run_until_complete(main())
end = time.time()
"""


def test_a_process_ends_soon_after_its_loop() -> None:
    done = subprocess.run([sys.executable, "-c", EXIT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10 * SECONDS
