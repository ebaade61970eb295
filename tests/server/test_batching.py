"""The queue: which jobs are read together, in which order, and what happens to the others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from at2_rag import InputError, PruneOptions, PruneResult
from at2_rag.server.batching import Batcher, Job
from at2_rag.server.errors import ErrorKind, RequestError

TOP_1, TOP_2 = PruneOptions(top_k=1), PruneOptions(top_k=2)


def job(name: str, tokens: int = 10, options: PruneOptions = TOP_1, priority: int = 0) -> Job:
    return Job(name, (), options, tokens, priority=priority)


class Reader:
    """Reads batches when it is let, and notes which."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.cancelled: list[list[str]] = []
        self.may_read = asyncio.Event()
        self.bad: set[str] = set()

    async def read(self, jobs: Sequence[Job]) -> list[PruneResult]:
        names = [one.query for one in jobs]
        self.batches.append(names)
        try:
            await self.may_read.wait()
        except asyncio.CancelledError:
            self.cancelled.append(names)
            raise
        if self.bad.intersection(names):
            raise InputError("bad")
        return [PruneResult(name, (), (), 0, 0) for name in names]


@asynccontextmanager
async def batcher(reader: Reader, **settings: Any) -> AsyncIterator[Batcher]:
    limits = {"max_batch_tokens": 30, "max_queue_tokens": 100, "delay": 0.0, "readers": 1}
    made = Batcher(reader.read, **{**limits, **settings})
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


async def test_what_waits_is_divided_among_readers_that_are_free() -> None:
    reader = Reader()
    async with batcher(reader, readers=2, max_batch_tokens=100) as queue:
        jobs = queue.submit([job(name) for name in "abcdefgh"])
        await settled()
        assert reader.batches == [["a", "b", "c", "d"], ["e", "f", "g", "h"]]
        jobs += queue.submit([job("i"), job("j")])
        reader.may_read.set()
        await asyncio.gather(*jobs)
    assert queue.tokens == 0


async def test_all_readers_begin_after_one_delay() -> None:
    reader = Reader()
    async with batcher(reader, readers=4, delay=0.2) as queue:
        jobs = queue.submit([job(name, 6) for name in "abcd"])
        await asyncio.sleep(0.1)
        assert reader.batches == []
        await asyncio.sleep(0.2)
        assert reader.batches == [["a"], ["b"], ["c"], ["d"]]
        reader.may_read.set()
        await asyncio.gather(*jobs)
    assert queue.tokens == 0


async def test_a_reader_that_is_free_alone_takes_all_that_waits() -> None:
    reader = Reader()
    async with batcher(reader, readers=2, max_batch_tokens=100) as queue:
        jobs = queue.submit([job("first")])
        await settled()
        jobs += queue.submit([job(name) for name in "abcd"])
        await settled()
        assert reader.batches == [["first"], ["a", "b", "c", "d"]]
        reader.may_read.set()
        await asyncio.gather(*jobs)


async def test_what_waits_is_read_together_with_equal_options_within_the_bound() -> None:
    reader = Reader()
    async with batcher(reader) as queue:
        first = queue.submit([job("first")])
        await settled()
        others = queue.submit(
            [job("a", 12), job("b", 25), job("c", 9), job("d", 9, TOP_2), job("e", 8)]
        )
        reader.may_read.set()
        results = await asyncio.gather(*first, *others)
    assert [result.query for result in results] == ["first", "a", "b", "c", "d", "e"]
    # The oldest begins a batch, and the shortest that are alike fill it up.
    assert reader.batches == [["first"], ["a", "e", "c"], ["b"], ["d"]]
    assert queue.tokens == 0


async def test_lower_numbers_are_read_first() -> None:
    reader = Reader()
    async with batcher(reader, max_batch_tokens=10) as queue:
        futures = queue.submit([job("first")])
        await settled()
        for number, name in ((2, "late"), (0, "soon"), (1, "middle")):
            futures += queue.submit([job(name, priority=number)])
        reader.may_read.set()
        await asyncio.gather(*futures)
    assert reader.batches == [["first"], ["soon"], ["middle"], ["late"]]


async def test_waiting_makes_up_for_a_priority() -> None:
    reader = Reader()
    async with batcher(reader, max_batch_tokens=10) as queue:
        futures = queue.submit([job("first")])
        await settled()
        futures += queue.submit([job("patient", priority=2)])
        await asyncio.sleep(0.25)  # longer than two steps
        futures += queue.submit([job("urgent", priority=0)])
        reader.may_read.set()
        await asyncio.gather(*futures)
    assert reader.batches == [["first"], ["patient"], ["urgent"]]


async def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    reader = Reader()
    async with batcher(reader) as queue:
        whole = queue.submit([job("larger than the queue", 1000)])
        with pytest.raises(RequestError, match="1,000 tokens wait") as refused:
            queue.submit([job("one more", 1)])
        assert refused.value.kind is ErrorKind.BUSY
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
        reader.may_read.set()
        await asyncio.gather(*whole)
        assert queue.tokens == 0
        with pytest.raises(RequestError):
            queue.submit([job("a", 60)]) and queue.submit([job("b", 20), job("c", 21)])
        assert queue.tokens == 60, "none of a refused request's jobs is queued"


async def test_withdrawn_jobs_are_not_read() -> None:
    reader = Reader()
    async with batcher(reader) as queue:
        [first] = queue.submit([job("first")])
        await settled()
        gone, stays = queue.submit([job("gone"), job("stays")])
        gone.cancel()
        await settled()
        assert queue.tokens == 20
        reader.may_read.set()
        await asyncio.gather(first, stays)
    assert reader.batches == [["first"], ["stays"]]


async def test_a_batch_that_nobody_awaits_is_cancelled_and_makes_way() -> None:
    reader = Reader()
    async with batcher(reader) as queue:
        pair = queue.submit([job("a"), job("b")])
        await settled()
        [other] = queue.submit([job("c")])
        pair[0].cancel()
        await settled()
        assert reader.cancelled == [], "someone still awaits the other half"
        assert queue.tokens == 30, "what is read with another counts until it was read"
        pair[1].cancel()
        await settled()
        assert reader.cancelled == [["a", "b"]]
        assert queue.tokens == 10
        reader.may_read.set()
        assert (await other).query == "c"
    assert queue.tokens == 0


async def test_what_is_read_beside_the_batches_counts() -> None:
    async with batcher(Reader()) as queue:
        with queue.beside(1000):  # an empty queue takes anything
            with pytest.raises(RequestError, match="1,000 tokens wait"):
                queue.submit([job("a")])
            with pytest.raises(RequestError), queue.beside(1):
                pass
        assert queue.tokens == 0


async def test_an_error_that_nobody_awaits_is_not_printed() -> None:
    printed: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: printed.append(context))
    reader = Reader()
    reader.bad = {"a"}
    reader.may_read.set()
    async with batcher(reader) as queue:
        futures = queue.submit([job("a")])
        await settled()
        assert futures[0].done()
        del futures
        gc.collect()
        await settled()
    assert printed == []


async def test_one_that_fails_takes_no_other_with_it() -> None:
    reader = Reader()
    reader.bad = {"b"}
    reader.may_read.set()
    async with batcher(reader) as queue:
        futures = queue.submit([job("a"), job("b"), job("c")])
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert queue.tokens == 0
    assert [isinstance(result, InputError) for result in results] == [False, True, False]
    assert reader.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_the_end_cancels_what_waits_and_what_is_read() -> None:
    reader = Reader()
    async with batcher(reader) as queue:
        read, waits = queue.submit([job("a", 30), job("b", 30)])
        await settled()
    await settled()
    assert reader.cancelled == [["a"]] and read.cancelled() and waits.cancelled()
    assert queue.tokens == 0


async def test_the_end_cancels_a_batch_that_has_not_begun() -> None:
    reader = Reader()
    async with batcher(reader) as queue:
        [future] = queue.submit([job("a")])
        while queue.waiting:
            await asyncio.sleep(0)
    await settled()
    assert future.cancelled() and queue.tokens == 0


async def test_the_delay_gathers_what_comes_meanwhile() -> None:
    reader = Reader()
    reader.may_read.set()
    async with batcher(reader, delay=0.05) as queue:
        one = queue.submit([job("one")])
        await asyncio.sleep(0)
        await asyncio.gather(*one, *queue.submit([job("two")]))
    assert reader.batches == [["one", "two"]]
