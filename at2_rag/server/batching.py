"""Gathers requests into batches that are read together, and refuses what it can't hold."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from at2_rag.options import PruneOptions
from at2_rag.pruning.history import Turn
from at2_rag.results import PruneResult
from at2_rag.server.errors import ErrorKind, RequestError
from at2_rag.text.chunks import ChunkLike

_FIRST_RATE = 1000.0  # tokens a second, until some were read
_MOST_RETRY_SECONDS = 60
_RATE_WEIGHT = 0.2  # of the latest batch in the mean rate
_PRIORITY_SECONDS = 0.1  # that a job lets others pass it, for each step of its priority number


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A question with its chunks, ready to be read.

    Attributes:
        query: The question.
        chunks: Its chunks.
        options: The options, with a limit.
        tokens: How many tokens the scoring model reads.
        history: The turns before the question.
        priority: Lower numbers are read first, but see `Batcher`.
    """

    query: str
    chunks: Sequence[ChunkLike]
    options: PruneOptions
    tokens: int
    history: Sequence[Turn] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A job in the queue, and the future of its result."""

    job: Job
    result: asyncio.Future[PruneResult]
    arrived: float = field(default_factory=time.monotonic)

    @property
    def turn(self) -> float:
        """When it is its turn: those with the least are read first."""
        return self.arrived + _PRIORITY_SECONDS * self.job.priority


ReadTogether: TypeAlias = Callable[[Sequence[Job]], Awaitable[list[PruneResult]]]


class Batcher:
    """Reads jobs in batches, first those of the lowest priority number, then the oldest.

    A tenth of a second of waiting makes up for a step of priority, so that each job is read in
    time, whatever comes after it. A batch is the first job and, while they fit, the shortest others
    with equal options; what waits is divided among the readers that are free. Jobs whose results
    nobody awaits any more are left out, and a batch of which that is true is cancelled; one job of
    a batch is read to the end with the others, and its tokens count until then. Used from one event
    loop; `run` has to run in it.

    Args:
        read: Prunes jobs with equal options; cancelled, it stops.
        max_batch_tokens: Most tokens of a batch; a larger job is read by itself.
        max_queue_tokens: Most tokens that wait or are read; an empty queue takes any job.
        delay: Seconds to wait for more jobs, if those that wait would fit into one batch.
        readers: How many batches are read at a time.
        on_batch: Called with the jobs of each batch that is about to be read.
    """

    def __init__(
        self,
        read: ReadTogether,
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        delay: float,
        readers: int,
        on_batch: Callable[[Sequence[Waiting]], None] = lambda batch: None,
    ) -> None:
        self._read = read
        self._max_batch_tokens, self._max_queue_tokens = max_batch_tokens, max_queue_tokens
        self._delay = delay
        self._readers, self._reader_free = readers, asyncio.Event()
        self._on_batch = on_batch
        self._waiting: dict[Waiting, None] = {}  # in the order in which they came
        self._arrived = asyncio.Event()
        self._batches: dict[asyncio.Task[None], list[Waiting]] = {}  # that are read
        self._reader_free.set()
        self._rate = _FIRST_RATE  # tokens a second and reader
        self.tokens = 0  # that wait or are read

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def submit(self, jobs: Sequence[Job]) -> list[asyncio.Future[PruneResult]]:
        """Queue all jobs of a request; a job is withdrawn by cancelling its future.

        Raises:
            RequestError: If they don't fit into the queue; then none is queued.
        """
        self._take(sum(job.tokens for job in jobs))
        loop = asyncio.get_running_loop()
        entries = [Waiting(job, loop.create_future()) for job in jobs]
        for entry in entries:
            entry.result.add_done_callback(partial(self._forget, entry))
        self._waiting |= dict.fromkeys(entries)
        self._arrived.set()
        return [entry.result for entry in entries]

    @contextmanager
    def beside(self, tokens: int) -> Iterator[None]:
        """Count tokens that the block reads beside the batches.

        Raises:
            RequestError: If they don't fit into the queue.
        """
        self._take(tokens)
        try:
            yield
        finally:
            self.tokens -= tokens

    def _take(self, tokens: int) -> None:
        if self.tokens and self.tokens + tokens > self._max_queue_tokens:
            raise RequestError(
                ErrorKind.BUSY,
                f"{self.tokens:,} tokens wait or are read, this request has {tokens:,}, and at "
                f"most {self._max_queue_tokens:,} may; try again in {self.retry_after} s",
                retry_after=self.retry_after,
            )
        self.tokens += tokens

    @property
    def retry_after(self) -> int:
        """Seconds after which what is queued will probably have been read."""
        seconds = math.ceil(self.tokens / (self._rate * self._readers))
        return max(1, min(_MOST_RETRY_SECONDS, seconds))

    async def run(self) -> None:
        """Start batches until cancelled, which also cancels those that are read or wait."""
        try:
            while True:
                await self._arrived.wait()
                await self._reader_free.wait()
                if sum(entry.job.tokens for entry in self._waiting) < self._max_batch_tokens:
                    await asyncio.sleep(self._delay)
                while self._waiting and len(self._batches) < self._readers:
                    self._start(self._next_batch())
                if not self._waiting:
                    self._arrived.clear()
        finally:
            for task in self._batches:
                task.cancel()
            for entry in self._waiting:
                entry.result.cancel()

    def _start(self, batch: list[Waiting]) -> None:
        task = asyncio.create_task(self._read_batch(batch))
        self._batches[task] = batch
        task.add_done_callback(self._end)
        if len(self._batches) == self._readers:
            self._reader_free.clear()

    def _end(self, task: asyncio.Task[None]) -> None:
        batch = self._batches.pop(task)
        self._reader_free.set()
        self.tokens -= sum(entry.job.tokens for entry in batch)
        for entry in batch:
            entry.result.cancel()  # of those that have no result, since the task was cancelled

    def _forget(self, entry: Waiting, result: asyncio.Future[PruneResult]) -> None:
        if not result.cancelled():
            result.exception()  # asyncio prints those that nobody asked for, texts and all
        if entry in self._waiting:  # else its tokens count until its batch was read
            del self._waiting[entry]
            self.tokens -= entry.job.tokens

    def _next_batch(self) -> list[Waiting]:
        first, *others = sorted(self._waiting, key=lambda entry: entry.turn)
        batch, tokens = [first], first.job.tokens
        free = self._readers - len(self._batches)
        share = sum(entry.job.tokens for entry in self._waiting) / free
        most = min(self._max_batch_tokens, share)
        alike = (entry for entry in others if entry.job.options == first.job.options)
        for entry in sorted(alike, key=lambda entry: entry.job.tokens):
            tokens += entry.job.tokens
            if tokens > most:
                break
            batch.append(entry)
        for entry in batch:
            del self._waiting[entry]
        return batch

    async def _read_batch(self, batch: list[Waiting]) -> None:
        self._on_batch(batch)
        await self._settle(batch)

    async def _settle(self, batch: Sequence[Waiting]) -> None:
        """Give the entries their results; one by one where they fail together."""
        batch = [entry for entry in batch if not entry.result.done()]
        if not batch:
            return
        start = time.monotonic()
        try:
            results = await self._read_while_wanted(batch)
        except Exception as error:
            if len(batch) == 1:
                _finish(batch[0], error)
            else:
                for entry in batch:
                    await self._settle([entry])
            return
        if not results:
            return
        seconds = max(time.monotonic() - start, 1e-6)
        rate = sum(entry.job.tokens for entry in batch) / seconds
        self._rate += _RATE_WEIGHT * (rate - self._rate)
        for entry, result in zip(batch, results, strict=True):
            _finish(entry, result)

    async def _read_while_wanted(self, batch: Sequence[Waiting]) -> list[PruneResult]:
        """Return the results of a batch; none once all of its entries are withdrawn."""
        task = asyncio.ensure_future(self._read([entry.job for entry in batch]))
        wanted = len(batch)

        def cancel_unwanted(_: object) -> None:
            nonlocal wanted
            wanted -= 1
            if not wanted:
                task.cancel()

        for entry in batch:
            entry.result.add_done_callback(cancel_unwanted)
        try:
            return await task
        except asyncio.CancelledError:
            if not wanted:
                return []
            raise  # the server stops


def _finish(entry: Waiting, outcome: PruneResult | Exception) -> None:
    if entry.result.done():  # withdrawn meanwhile
        return
    if isinstance(outcome, Exception):
        entry.result.set_exception(outcome)
    else:
        entry.result.set_result(outcome)
