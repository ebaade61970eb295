"""What a system has to offer to be ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from at2_rag.text.chunks import Chunk


@dataclass(frozen=True, slots=True)
class ChunkScores:
    """A system's scores of one item's chunks, or of what else is scored of them.

    Attributes:
        scores: One a chunk, in input order; larger ranks higher.
        truncated: How many of the chunks the system read only in part.
    """

    scores: tuple[float, ...]
    truncated: int = 0


class Ranker(Protocol):
    """A system that scores chunks for a query. It never sees labels or answers."""

    @property
    def name(self) -> str:
        """What the report calls the system."""
        ...

    @property
    def workers(self) -> int:
        """How many items to score at a time, each in a thread of its own."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """All that decides the scores besides the item, as JSON-ready values.

        Stored scores are found again by these, so whatever changes a score must change them.
        """
        ...

    def prepare(self) -> None:
        """Load what scoring needs; called once, before the first item, if there is one to score."""
        ...

    def score(self, query: str, chunks: Sequence[Chunk]) -> ChunkScores:
        """Score an item's chunks, in input order."""
        ...


def readable(text: str) -> str:
    """Return the text with lone surrogates, which no tokenizer takes, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
