"""The best chunks of a ranker, of which only a part is passed on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.qa.pruners.ranking import RankingPruner, best_within
from at2_rag_evals.rankers.base import Ranker
from at2_rag_evals.store import Store, settings_key


@dataclass(frozen=True, slots=True)
class TrimmedText:
    """What is left of a chunk, title and text, and how long trimming took."""

    text: str
    seconds: float


class Trimmer(Protocol):
    """Shortens chunks for a question, each without a look at the others.

    Name and settings are as a pruner's.
    """

    name: str
    settings: Mapping[str, object]

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
        store: The file of stored scores and texts; None to remember them for this run only.
    """

    budgeted = True
    ordered = True

    def __init__(self, ranker: Ranker, trimmer: Trimmer, *, store: Path | None = None) -> None:
        self.name = trimmer.name
        self.settings: Mapping[str, object] = {
            "ranking": {"name": ranker.name, **ranker.settings},
            **trimmer.settings,
        }
        self._ranking = RankingPruner(ranker, store=store)
        self._trimmer = trimmer
        self._store = Store(store, settings_key(trimmer), TrimmedText)
        self._ready = False

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep the best chunks within the limit, by the tokens of what is passed on of them."""
        scored = self._ranking.scored(item)
        indices = tuple(range(len(item.chunks)))
        if limit.budget.max_tokens is None:
            indices = best_within(limit, scored.scores, [chunk.rendered for chunk in item.chunks])
        trimmed = self._trimmed(item, indices)
        start = time.perf_counter()
        texts = {index: left.text for index, left in trimmed.items()}
        kept = best_within(limit, scored.scores, texts)
        seconds = scored.seconds + sum(left.seconds for left in trimmed.values())
        seconds += time.perf_counter() - start
        return Pruned(kept, seconds, tuple(texts[index] for index in kept))

    def _trimmed(self, item: Example, indices: Sequence[int]) -> dict[int, TrimmedText]:
        """Return what is left of the chunks at these indices, by index."""
        keys = {index: content_hash(item.query, (item.chunks[index],)) for index in indices}
        missing = {key: index for index, key in keys.items() if key not in self._store}
        if missing:
            if not self._ready:
                self._trimmer.prepare()
                self._ready = True
            start = time.perf_counter()
            chunks = [item.chunks[index] for index in missing.values()]
            texts = self._trimmer.trim(item.query, chunks)
            seconds = (time.perf_counter() - start) / len(missing)
            for key, text in zip(missing, texts, strict=True):
                self._store[key] = TrimmedText(text, seconds)
        return {index: self._store[key] for index, key in keys.items()}
