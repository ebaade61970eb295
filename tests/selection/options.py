"""Selection in tests: options by keyword, beside the arguments of `select`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from at2_rag.options import PruneOptions
from at2_rag.selection.select import Novelty, Selection
from at2_rag.selection.select import select as select_by_options


def select(
    scores: Any,
    *,
    tokens_of: Callable[[Sequence[int]], int] | None = None,
    probabilities: Any = None,
    always: Collection[int] = (),
    novelty: Novelty | None = None,
    spared: int = 0,
    what: str = "chunk",
    **options: Any,
) -> Selection:
    """Select by options that are passed by name."""
    return select_by_options(
        scores,
        PruneOptions(**options),
        tokens_of=tokens_of,
        probabilities=probabilities,
        always=always,
        novelty=novelty,
        spared=spared,
        what=what,
    )
