"""A row of numbers an example, collected shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.training.collection.store import ShardArrays, ShardStore

SHARD_EXAMPLES = 20
"""Examples of a shard."""

Row = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ShardRows(ShardArrays):
    """The rows of one shard's examples.

    Attributes:
        examples: [I] int64, index of each example; those that can't be read are missing.
        counts: [I] int64, length of each one's row; they follow one another below.
        values: [sum of counts] float32.
    """

    examples: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    values: Row

    def lengths(self) -> dict[str, int]:
        """Return how long arrays have to be by what others say."""
        return {"counts": len(self.examples), "values": int(self.counts.sum())}

    def is_of(self, planned: Sequence[int]) -> bool:
        """Tell whether it may come from reading these examples, given by index."""
        return set(self.examples.tolist()) <= set(planned)

    def by_example(self) -> dict[int, Row]:
        """Return each example's row, by its index."""
        ends = np.cumsum(self.counts)
        return {
            example: self.values[end - count : end]
            for example, end, count in zip(self.examples.tolist(), ends, self.counts, strict=True)
        }


def collect_rows(
    read: Callable[[int], Row | None],
    count: int,
    folder: str | Path,
    *,
    settings: Mapping[str, Any],
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Row]:
    """Return each example's row by its index, reading only what the folder doesn't hold.

    Args:
        read: Returns the row of the example with this index; None if it can't be read.
        count: How many examples there are.
        folder: Where shards are kept.
        settings: JSON-ready values that decide the rows.
        workers: Threads that each read examples of their own.
        progress: Called with the number of examples done and in all.

    Raises:
        DataError: If the folder holds a collection with other settings.
        StorageError: If a shard can't be written.
    """
    store = ShardStore(folder, ShardRows, settings=settings)
    places = range(count)
    shards = [places[start : start + SHARD_EXAMPLES] for start in places[::SHARD_EXAMPLES]]
    stored = [store.read(index, shard) for index, shard in enumerate(shards)]
    done = sum(len(shard) for shard, own in zip(shards, stored, strict=True) if own is not None)
    progress(done, count)
    found: dict[int, Row] = {}
    with ThreadPoolExecutor(workers) as executor:
        for index, (shard, arrays) in enumerate(zip(shards, stored, strict=True)):
            if arrays is None:
                rows: dict[int, Row] = {}
                for place, row in zip(shard, executor.map(read, shard), strict=True):
                    if row is not None:
                        rows[place] = row
                    done += 1
                    progress(done, count)
                arrays = _to_shard(rows)
                store.write(index, arrays)
            found |= arrays.by_example()
    return found


def _to_shard(rows: Mapping[int, Row]) -> ShardRows:
    return ShardRows(
        examples=np.array(list(rows), dtype=np.int64),
        counts=np.array([len(own) for own in rows.values()], dtype=np.int64),
        values=np.concatenate([np.zeros(0, dtype=np.float32), *rows.values()]),
    )
