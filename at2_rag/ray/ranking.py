"""`at2-rag eval ranking` with its systems in processes of a cluster.

The command, its report and its stored scores are those of one machine; only the systems are others:
each hands its items to copies of itself, and has the same name and settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import ray

from at2_rag.errors import AT2Error, ScoringError
from at2_rag.ray.cluster import absolute_model, absolute_weights, use_cores
from at2_rag.text.chunks import Chunk
from at2_rag_evals.named_systems import NamedSystem
from at2_rag_evals.rankers import ItemScores, Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.base import checked_scores


class RemoteRanker(Ranker):
    """A ranker whose items are scored by copies of it.

    Args:
        ranker: The ranker; never prepared here.
        options: What it was made with.
        actors: How many copies there are.
        cpus: CPUs of each.
        gpus: GPUs of each.
    """

    def __init__(
        self, ranker: Ranker, options: RankerOptions, *, actors: int, cpus: int, gpus: float
    ) -> None:
        self.name, self.settings = ranker.name, ranker.settings
        # A copy scores as many items at a time as it has cores, while one more travels.
        self._in_flight = cpus + 1
        self.workers = self._in_flight * actors
        self._options, self._actors, self._cpus, self._gpus = options, actors, cpus, gpus
        self._free: SimpleQueue[Any] = SimpleQueue()

    def prepare(self) -> None:
        """Start the copies; each loads what scoring needs, and is started again if it dies."""
        remote = ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_concurrency=self._cpus,
            max_restarts=-1,
            max_task_retries=-1,
        )(_Copy)
        copies = [remote.remote(self.name, self._options, self._cpus) for _ in range(self._actors)]
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

    def __init__(self, name: str, options: RankerOptions, cpus: int) -> None:
        use_cores(cpus)
        self._ranker = make_ranker(name, options)
        self._ranker.prepare()

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores | str:
        """Score an item; return what is wrong if that fails, since Ray's errors fill pages."""
        try:
            scored = checked_scores(lambda: self._ranker.score(query, chunks), len(chunks), "")
        except AT2Error as error:
            return str(error).removeprefix(": ")
        return replace(scored, scores=tuple(map(float, scored.scores)))


def make_remote(
    name: str, options: RankerOptions, *, actors: int, cpus: int, gpus: float
) -> RemoteRanker:
    """Make the ranker of this name, as `make_ranker` does, to score in the cluster."""
    ranker = make_ranker(name, options)
    found_anywhere = replace(
        options,
        model=absolute_model(options.model),
        head_weights=absolute_weights(options.head_weights),
        weights=tuple(
            NamedSystem(each.name, absolute_weights(each.spec) or each.spec)
            for each in options.weights
        ),
    )
    return RemoteRanker(ranker, found_anywhere, actors=actors, cpus=cpus, gpus=gpus)
