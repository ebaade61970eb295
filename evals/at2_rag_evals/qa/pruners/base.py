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
    """What was kept of an item.

    Attributes:
        kept: Indices of the kept chunks, in the order the generator sees them.
        seconds: What pruning a new item costs, models loaded.
        texts: What the generator sees of the kept chunks, title and text, in the same order; None
            for the chunks as they are.
    """

    kept: tuple[int, ...]
    seconds: float
    texts: tuple[str, ...] | None = None

    def passed_on(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return what the generator sees of the item's chunks."""
        if self.texts is not None:
            return [Chunk(text) for text in self.texts]
        return [chunks[index] for index in self.kept]


class Pruner(Protocol):
    """Keeps some of an item's chunks.

    Of an item it looks at question and chunks alone; only `oracle` looks at labels, and none at
    answers.

    Attributes:
        name: What the report calls the pruner.
        budgeted: Whether the budget makes a difference.
        ordered: Whether the limit's order makes a difference.
        settings: All that decides what is kept besides item and limit, as JSON-ready values.
    """

    name: str
    budgeted: bool
    ordered: bool
    settings: Mapping[str, object]

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Choose what is kept of an item; models are loaded on the first item that needs them."""
        ...
