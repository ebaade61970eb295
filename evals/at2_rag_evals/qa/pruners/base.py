"""What a pruner has to offer to be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from at2_rag.data.examples import Example
from at2_rag.options import Order
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.budgets import Budget


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may be kept, and in which order it is passed on."""

    budget: Budget
    order: Order
    count: Callable[[str], int]  # tokens of a text by the generator's tokenizer


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was kept of an item, in the order the generator sees it."""

    kept: tuple[int, ...]  # indices of chunks
    seconds: float  # what pruning a new item costs, models loaded
    texts: tuple[str, ...] | None = None  # title and text; None for the chunks as they are

    def passed_on(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return what the generator sees of the item's chunks."""
        if self.texts is not None:
            return [Chunk(text) for text in self.texts]
        return [chunks[index] for index in self.kept]


class Pruner(Protocol):
    """Keeps some of an item's chunks.

    It looks at question and chunks alone; only `oracle` looks at labels, and none at answers.
    """

    name: str  # what the report calls it
    budgeted: bool  # whether the budget makes a difference
    ordered: bool  # whether the limit's order makes a difference
    settings: Mapping[str, object]  # JSON-ready: what decides besides item and limit

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Choose what is kept of an item; models are loaded on the first item that needs them."""
        ...
