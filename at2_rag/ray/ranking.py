"""`at2-rag eval ranking` with its systems in processes of a cluster.

The command, its report and its stored scores are those of one machine; only the systems are others:
each hands its items to copies of itself, and has the same name and settings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue
from threading import Lock
from typing import Any

import ray

from at2_rag.errors import AT2Error, ScoringError
from at2_rag.ray.cluster import Worker
from at2_rag.text.chunks import Chunk
from at2_rag_evals.rankers import ItemScores, Ranker, RankerOptions, make_ranker


class Copies:
    """Processes that score the items of all systems, started for the first item.

    Args:
        actors: How many there are.
        worker: What each takes.
    """

    def __init__(self, *, actors: int, worker: Worker) -> None:
        self._actors, self._worker = actors, worker
        # A copy scores as many items at a time as it has cores, while one more travels.
        self._in_flight = worker.cpus + 1
        self.workers = self._in_flight * actors
        self._free: SimpleQueue[Any] = SimpleQueue()
        self._started = False

    def start(self) -> None:
        """Start the processes, unless they run; one that dies is started again."""
        if self._started:
            return
        remote = ray.remote(
            **self._worker.resources,
            max_concurrency=self._worker.cpus,
            max_restarts=-1,
            max_task_retries=-1,
        )(_Copy)
        copies = [remote.remote(self._worker) for _ in range(self._actors)]
        for copy in copies * self._in_flight:
            self._free.put(copy)
        self._started = True

    def score(
        self, name: str, options: RankerOptions, query: str, chunks: Sequence[Chunk]
    ) -> ItemScores | str:
        """Let a copy that is free score an item; return what is wrong if that fails."""
        copy = self._free.get()
        try:
            scored: ItemScores | str = ray.get(
                copy.score.remote(name, options, query, tuple(chunks))
            )
        finally:
            self._free.put(copy)
        return scored


class RemoteRanker(Ranker):
    """A ranker whose items are scored by copies of it.

    Args:
        ranker: The ranker; never prepared here.
        options: What it was made with.
        copies: The processes that score, those of all systems.
    """

    def __init__(self, ranker: Ranker, options: RankerOptions, copies: Copies) -> None:
        self.name, self.settings = ranker.name, ranker.settings
        self.workers = copies.workers
        self._options, self._copies = options, copies

    def prepare(self) -> None:
        """Start the copies; each loads what scoring needs with its first item."""
        self._copies.start()

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Let a copy that is free score an item."""
        scored = self._copies.score(self.name, self._options, query, chunks)
        if isinstance(scored, str):
            raise ScoringError(scored)
        return scored


class _Copy:
    """Scores items in a process, with one system's ranker loaded at a time."""

    def __init__(self, worker: Worker) -> None:
        worker.settle()
        self._lock = Lock()  # items are scored by several threads
        self._name = ""
        self._ranker: Ranker | None = None

    def score(
        self, name: str, options: RankerOptions, query: str, chunks: Sequence[Chunk]
    ) -> ItemScores | str:
        """Score an item; return what is wrong if that fails, since Ray's errors fill pages."""
        try:
            ranker = self._prepared(name, options)
            start = time.perf_counter()
            scored = ranker.score(query, chunks)
        except AT2Error as error:
            return str(error)
        return replace(scored, seconds=time.perf_counter() - start)

    def _prepared(self, name: str, options: RankerOptions) -> Ranker:
        with self._lock:
            if self._ranker is None or self._name != name:
                self._ranker = None  # frees what the system before it took
                ranker = make_ranker(name, options)
                ranker.prepare()
                self._name, self._ranker = name, ranker
            return self._ranker


def make_remote(name: str, options: RankerOptions, *, copies: Copies) -> RemoteRanker:
    """Make the ranker of this name, as `make_ranker` does, to score in the cluster."""
    return RemoteRanker(make_ranker(name, options), options, copies)
