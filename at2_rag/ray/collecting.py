"""Reads what a training run is fitted to, by any number of processes of a cluster.

Each process makes the collections that `at2-rag train` would, over the same folder, and reads the
shards that it is given. So the folder is that of one machine, and a run that was killed goes on
after the shards that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from at2_rag.errors import StorageError
from at2_rag.progress import StepProgress
from at2_rag.ray.cluster import Worker
from at2_rag.ray.jobs import Actor, handled
from at2_rag.training.collection.collection import Collection
from at2_rag.training.commands.collecting import CollectionRequest, open_input, read_questions


class ShardReader(Actor):
    """A process that reads shards.

    Args:
        request: What is read.
        number: Which of its parts.
        worker: What the process takes.
    """

    def __init__(self, request: CollectionRequest, number: int, worker: Worker) -> None:
        worker.settle()
        self._request, self._number, self._workers = request, number, worker.cpus
        self._part: Collection | None = None

    def handle(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read a shard."""
        if self._part is None:  # the parts before are whole
            parts = open_input(self._request, read_questions(self._request)).parts()
            self._part = next(islice(parts, self._number, None))
        self._part.read_shards([int(item["shard"])], workers=self._workers)
        return {}


def collect_shards(request: CollectionRequest, *, actors: int, worker: Worker) -> int:
    """Read all shards that the folder doesn't hold; return how many there were.

    Args:
        request: What is read; every node has to find its files and its folder.
        actors: How many processes read, each with a model.
        worker: What each takes.

    Raises:
        AT2Error: If it can't be read; what was read before is kept.
    """
    count = 0
    with StepProgress() as progress:
        opened = open_input(request, read_questions(request), progress=progress)
        for number, part in enumerate(opened.parts()):
            missing = part.missing_shards()
            if not missing:
                continue
            stage = " ".join(["reading", *part.folder.relative_to(request.folder).parts])
            progress(stage, 0, len(missing))
            shards, arguments = [{"shard": shard} for shard in missing], (request, number, worker)
            rows = handled(shards, ShardReader, arguments, actors=actors, worker=worker)
            for done, _ in enumerate(rows, start=1):
                progress(stage, done, len(missing))
            if left := part.missing_shards():
                raise StorageError(
                    f"{part.folder} lacks {len(left)} of {len(missing)} shards that were read; "
                    "every node has to write to the same folder: name one that they share"
                )
            count += len(missing)
    return count
