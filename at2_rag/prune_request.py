"""One question with its chunks on its way to a result; the pruner adds the scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.chunk_arguments import checked_chunks, scored_chunks
from at2_rag.chunks import Chunk, ChunkLike, PruneResult
from at2_rag.selection import Order, check_limits, select
from at2_rag.stopwatch import Stopwatch
from at2_rag.token_counting import TokenCounter

_KEEP_MASS_NOTE = (
    "keep_mass means little with these head weights: their scores add up, as shares of attention "
    "do, and are not logits, which the softmax over them takes them for."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept; see `AT2Pruner.prune`.

    Raises:
        InputError: As `selection.check_limits`.
    """

    top_k: int | None = None
    max_tokens: int | None = None
    min_score: float | None = None
    keep_mass: float | None = None
    min_tokens: int | None = None
    order: Order = "score"

    def __post_init__(self) -> None:
        check_limits(min_tokens=self.min_tokens, **self.of_selection)

    @property
    def of_selection(self) -> dict[str, Any]:
        """The arguments of `selection.select`."""
        return {
            "top_k": self.top_k,
            "max_tokens": self.max_tokens,
            "min_score": self.min_score,
            "keep_mass": self.keep_mass,
            "order": self.order,
        }


class PruneRequest:
    """A question with its chunks.

    Args:
        query: The question.
        chunks: The caller's chunks.
        limits: How much is kept.
        count: Counts tokens.
        separator: What stands between two chunks of the context.
        alone: Whether nothing else is done meanwhile, so that all time that passes is its own.

    Attributes:
        query: The question.
        views: The chunks as they are read.
        tokens: Tokens of all chunks as one context.
        watch: Takes the time of each stage.

    Raises:
        InputError: If the query is blank or not a string, or a chunk isn't text.
    """

    def __init__(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        limits: Limits,
        *,
        count: TokenCounter,
        separator: str,
        alone: bool = True,
    ) -> None:
        self.query = query
        self._given, self.views = checked_chunks(query, chunks)
        self.watch = Stopwatch()
        self._limits, self._count, self._separator = limits, count, separator
        self._alone = alone
        self._rendered = [view.rendered for view in self.views]
        if self.views:
            with self.watch.stage("count"):
                self.tokens = self._tokens_of(range(len(self.views)))
        else:
            self.tokens = count("")

    @property
    def pair(self) -> tuple[str, Sequence[Chunk]]:
        """The question and the chunks as they are read."""
        return self.query, self.views

    def without_scores(self) -> PruneResult | None:
        """Return the result where there is nothing to score, or too little to be worth it."""
        limits = self._limits
        if not self.views:
            return self._result((), ())
        small = limits.min_tokens is not None and self.tokens <= limits.min_tokens
        if not small or (limits.max_tokens is not None and self.tokens > limits.max_tokens):
            return None
        note = (
            f"The context has {self.tokens:,} tokens, at most min_tokens={limits.min_tokens:,}, "
            "and was kept as it is, without scoring."
        )
        return self._all_kept(note, skipped=True)

    def after_failure(self, error: Exception, *, shared: Mapping[str, float]) -> PruneResult:
        """Return the result that keeps every chunk because scoring failed; `shared` as below."""
        note = f"Scoring failed, so that all {len(self.views)} chunks were kept, unranked."
        reason = f"{type(error).__name__}: {error}"
        return self._all_kept(note, error=reason, timings=self._timings(shared))

    def with_scores(
        self,
        scores: npt.NDArray[np.float64],
        *,
        shared: Mapping[str, float],
        additive: bool,
    ) -> PruneResult:
        """Return what is kept by scores [S].

        Args:
            scores: One a chunk.
            shared: Seconds a stage of this request's part in what was done for one or several.
            additive: Whether scores add up and are no logits.
        """
        scored = scored_chunks(self._given, self.views, scores)
        with self.watch.stage("select"):
            chosen = select(
                [own.score for own in scored],
                tokens_of=self._tokens_of,
                **self._limits.of_selection,
            )
            tokens_after = self._tokens_of(chosen.kept)
        odd = additive and self._limits.keep_mass is not None
        return self._result(
            tuple(scored[index] for index in chosen.kept),
            tuple(scored[index] for index in chosen.dropped),
            tokens_after=tokens_after,
            notes=(*chosen.notes, _KEEP_MASS_NOTE) if odd else chosen.notes,
            timings=self._timings(shared),
        )

    def _all_kept(self, note: str, **why: Any) -> PruneResult:
        unknown = np.full(len(self.views), np.nan)
        kept = scored_chunks(self._given, self.views, unknown)
        return self._result(kept, (), notes=(note,), **why)

    def _result(self, kept: Any, dropped: Any, **fields: Any) -> PruneResult:
        found: dict[str, Any] = {
            "tokens_before": self.tokens,
            "tokens_after": self.tokens,
            "separator": self._separator,
            "timings": self._timings({}),
            **fields,
        }
        return PruneResult(self.query, kept, dropped, **found)

    def _timings(self, shared: Mapping[str, float]) -> dict[str, float]:
        return self.watch.timings(shared, elapsed=self._alone)

    def _tokens_of(self, indices: Sequence[int]) -> int:
        return self._count(self._separator.join(self._rendered[index] for index in indices))
