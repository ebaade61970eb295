"""What a ranker is, and the scores it gives an item."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from at2_rag.errors import AT2Error, ScoringError

if TYPE_CHECKING:  # so that names of rankers are known without numpy
    from at2_rag.data.examples import Example
    from at2_rag.text.chunks import Chunk


@dataclass(frozen=True, slots=True)
class ItemScores:
    """A system's scores of one item.

    Attributes:
        scores: One for each chunk (or sentence), in input order; larger ranks higher.
        truncated: How many of them the system read only in part.
        seconds: How long scoring took; NaN until `checked_scores` has measured it.
    """

    scores: tuple[float, ...]
    truncated: int = 0
    seconds: float = math.nan


class Ranker(Protocol):
    """A system that scores chunks for a query. It never sees labels or answers.

    Attributes:
        name: What the report calls the system.
        workers: How many items to score at a time, each in a thread.
        settings: All that decides the scores besides the item, as JSON-ready values. Stored scores
            are looked up by these, so whatever changes a score must change them.
    """

    name: str
    workers: int = 1
    settings: Mapping[str, object] = MappingProxyType({})

    def prepare(self) -> None:
        """Load what scoring needs; called once, before the first item that has to be scored."""
        return None

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score an item's chunks, in input order."""
        ...


def score_item(ranker: Ranker, item: Example) -> ItemScores:
    """Let a ranker score an item; time and errors as in `checked_scores`."""
    name = f"{ranker.name} failed on item {item.id!r} of {item.source}"
    return checked_scores(lambda: ranker.score(item.query, item.chunks), len(item.chunks), name)


def checked_scores(score: Callable[[], ItemScores], count: int, failure: str) -> ItemScores:
    """Return `count` scores with the seconds they took, unless they come with some.

    Raises:
        ScoringError: If `score` fails, or a score is missing or not finite; the message begins with
            `failure`.
    """
    start = time.perf_counter()
    try:
        result = score()
    except AT2Error as error:
        raise ScoringError(f"{failure}: {error}") from error
    seconds = time.perf_counter() - start
    if len(result.scores) != count or not all(map(math.isfinite, result.scores)):
        raise ScoringError(f"{failure}: its scores are {result.scores}; expected {count} numbers")
    return replace(result, seconds=seconds) if math.isnan(result.seconds) else result


def readable(text: str) -> str:
    """Return the text with lone surrogates, which no tokenizer takes, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
