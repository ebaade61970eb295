"""Many items, each handled by one of several processes that have loaded what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray import data

from at2_rag.errors import AT2Error, DataError
from at2_rag.ray.cluster import Worker


class Actor:
    """A process that handles items, one after the other; a subclass says how."""

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of what `handle` returns, or of why it can't."""
        try:
            return {**self.handle(item), "error": ""}
        except AT2Error as error:  # raised here, it would arrive in pages of Ray's own
            return {"error": str(error)}

    def handle(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """Handle an item."""
        raise NotImplementedError


def handled(
    items: Sequence[Mapping[str, Any]],
    actor: type[Actor],
    arguments: Sequence[Any],
    *,
    actors: int,
    worker: Worker,
) -> Iterator[dict[str, Any]]:
    """Yield what processes of the cluster return for each item, in any order.

    An item whose process dies is given to another.

    Args:
        items: What is handled, at least one item; each goes to one process.
        actor: What each process runs.
        arguments: Of its constructor.
        actors: How many processes there are at most.
        worker: What each takes.

    Raises:
        DataError: If an item can't be handled.
    """
    data.DataContext.get_current().enable_progress_bars = False  # ours say more
    rows = data.from_items(list(items), override_num_blocks=len(items)).map(
        actor,
        fn_constructor_args=tuple(arguments),
        compute=data.ActorPoolStrategy(size=min(actors, len(items))),
        **worker.resources,
    )
    for row in rows.iter_rows():
        if row["error"]:
            raise DataError(row["error"])
        yield row
