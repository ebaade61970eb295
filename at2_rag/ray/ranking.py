"""`at2-rag eval ranking` with its systems in processes of a cluster.

The command, its report and its stored scores are those of one machine; only the systems are others:
each hands its items to copies of itself, and has the same name and settings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import ray

from at2_rag.errors import AT2Error, ScoringError
from at2_rag.ray.cluster import Worker
from at2_rag.text.chunks import Chunk
from at2_rag_evals.rankers import ItemScores, Ranker, RankerOptions, make_ranker


class RemoteRanker(Ranker):
    """A ranker whose items are scored by copies of it.

    Args:
        ranker: The ranker; never prepared here.
        options: What it was made with.
        actors: How many copies there are.
        worker: What each takes.
    """

    def __init__(
        self, ranker: Ranker, options: RankerOptions, *, actors: int, worker: Worker
    ) -> None:
        self.name, self.settings = ranker.name, ranker.settings
        # A copy scores as many items at a time as it has cores, while one more travels.
        self._in_flight = worker.cpus + 1
        self.workers = self._in_flight * actors
        self._options, self._actors, self._worker = options, actors, worker
        self._free: SimpleQueue[Any] = SimpleQueue()

    def prepare(self) -> None:
        """Start the copies; each loads what scoring needs, and is started again if it dies."""
        remote = ray.remote(
            **self._worker.resources,
            max_concurrency=self._worker.cpus,
            max_restarts=-1,
            max_task_retries=-1,
        )(_Copy)
        copies = [
            remote.remote(self.name, self._options, self._worker) for _ in range(self._actors)
        ]
        for copy in copies * self._in_flight:
            self._free.put(copy)

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Let a copy that is free score an item."""
        copy = self._free.get()
        try:
            scored: ItemScores | str = ray.get(copy.score.remote(query, tuple(chunks)))
        finally:
            self._free.put(copy)
        if isinstance(scored, str):
            raise ScoringError(scored)
        return scored


class _Copy:
    """A ranker in a process of its own."""

    def __init__(self, name: str, options: RankerOptions, worker: Worker) -> None:
        worker.settle()
        self._ranker = make_ranker(name, options)
        self._ranker.prepare()

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores | str:
        """Score an item; return what is wrong if that fails, since Ray's errors fill pages."""
        start = time.perf_counter()
        try:
            scored = self._ranker.score(query, chunks)
        except AT2Error as error:
            return str(error)
        return replace(scored, seconds=time.perf_counter() - start)


def make_remote(name: str, options: RankerOptions, *, actors: int, worker: Worker) -> RemoteRanker:
    """Make the ranker of this name, as `make_ranker` does, to score in the cluster."""
    return RemoteRanker(make_ranker(name, options), options, actors=actors, worker=worker)
