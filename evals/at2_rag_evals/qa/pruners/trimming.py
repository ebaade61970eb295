"""The best chunks of a ranker, of which only a part is passed on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.qa.pruners.ranking import RankingPruner, best_within
from at2_rag_evals.qa.pruners.text_store import TextStore, TrimmedText
from at2_rag_evals.rankers.base import Ranker


class Trimmer(Protocol):
    """Shortens chunks for a question, each without a look at the others."""

    @property
    def name(self) -> str:
        """What the report calls the pruner."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """All that decides the texts besides question and chunk, as JSON-ready values."""
        ...

    def prepare(self) -> None:
        """Load what trimming needs; called once, before the first chunk to trim."""
        ...

    def trim(self, query: str, chunks: Sequence[Chunk]) -> list[str]:
        """Return what is left of each chunk, title and text."""
        ...


class TrimmingPruner:
    """Keeps the chunks that a ranker scores highest, and passes on what a trimmer leaves of them.

    With a number of chunks as budget, only those kept are trimmed; with one of tokens all are, and
    trimmed texts fill it. Scores and texts are stored as they are made.

    Args:
        ranker: The ranker.
        trimmer: The trimmer; the pruner has its name.
        folder: Where scores and texts are stored, in a folder of the trimmer's name; None to
            remember them for this run only.
    """

    budgeted = True
    ordered = True

    def __init__(self, ranker: Ranker, trimmer: Trimmer, *, folder: Path | None = None) -> None:
        self.name = trimmer.name
        self.settings: Mapping[str, object] = {
            "ranking": {"name": ranker.name, **ranker.settings},
            **trimmer.settings,
        }
        own = None if folder is None else folder / trimmer.name
        self._ranking = RankingPruner(ranker, folder=own)
        self._trimmer = trimmer
        self._store = TextStore(trimmer, own)
        self._ready = False

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep the best chunks within the limit, by the tokens of what is passed on of them.

        Raises:
            ScoringError: If the ranker fails on the item.
        """
        scored = self._ranking.scored(item)
        scores = scored.result.scores
        if limit.budget.max_tokens is None:
            wanted = best_within(limit, scores, lambda place: item.chunks[place].rendered)
        else:
            wanted = tuple(range(len(item.chunks)))
        trimmed = self._trimmed(item, wanted)
        start = time.perf_counter()
        kept = best_within(limit, scores, lambda place: trimmed[place].text)
        seconds = scored.seconds + sum(own.seconds for own in trimmed.values())
        return Pruned(
            kept,
            seconds + time.perf_counter() - start,
            tuple(trimmed[place].text for place in kept),
        )

    def _trimmed(self, item: Example, places: Sequence[int]) -> dict[int, TrimmedText]:
        """Return what is left of the chunks at these places, by place."""
        keys = {place: content_hash(item.query, (item.chunks[place],)) for place in places}
        missing = {key: place for place, key in keys.items() if key not in self._store}
        if missing:
            if not self._ready:
                self._trimmer.prepare()
                self._ready = True
            start = time.perf_counter()
            chunks = [item.chunks[place] for place in missing.values()]
            texts = self._trimmer.trim(item.query, chunks)
            seconds = (time.perf_counter() - start) / len(missing)
            for key, text in zip(missing, texts, strict=True):
                self._store.add(key, TrimmedText(text, seconds))
        return {place: self._store[key] for place, key in keys.items()}
