"""One question with its chunks on its way to a result; the pruner adds the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.options import LIMITS, UNANSWERABLE_BELOW, PruneOptions
from at2_rag.readout.calibration import ChunkScores
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.prior import prior_terms
from at2_rag.readout.trimming import UnitScores, kept_spans, protected_units, unit_places
from at2_rag.results import PruneResult, scored_chunks
from at2_rag.selection.novelty import TextNovelty
from at2_rag.selection.select import Selection, hold_only, select
from at2_rag.stopwatch import Stopwatch
from at2_rag.text.chunks import DEFAULT_ELLIPSIS, Chunk, ChunkLike, checked_chunks, join_spans
from at2_rag.text.protection import protected_spans
from at2_rag.text.tokens import TokenCounter

Floats = npt.NDArray[np.float64]

_LEAST_WORDS = 8
"""Words from which on a sentence may be redundant: "It was founded in 1899." may mean anything."""

_TOP_P_NOTE = (
    "top_p means little with these head weights: their scores add up, as shares of attention "
    "do, and are not logits, which the softmax over them takes them for."
)
_NO_PRIOR_NOTE = "prior={!r} changed nothing: no chunk has a retrieval_score."
_NO_TEXT_NOTE = (
    "Nothing was kept: no chunk has any text, and of a chunk without there are no sentences."
)


class PruneRequest:
    """A question with its chunks.

    Args:
        query: The question.
        chunks: The caller's chunks.
        limits: How much is kept.
        weights: The head weights that score the chunks.
        count: Counts tokens.
        separator: What stands between two chunks of the context.
        ellipsis: What stands for what is left out of a chunk.
        alone: Whether nothing else is done meanwhile, so that all time that passes is its own.

    Attributes:
        query: The question.
        views: The chunks as they are read.
        places: Where the units of the chunks' texts are, with `unit="sentence"`; else empty.
        multi_hop: Whether the question is asked again beside the best chunk; None where that
            depends on what a first reading says, see `asks_again`.
        prior: What the retriever adds to the chunks' scores, [S]; None for nothing.
        tokens: Tokens of all chunks as one context.
        watch: Takes the time of each stage.

    Raises:
        InputError: If the query is blank or not a string, a chunk isn't text, or what is to be
            protected isn't there.
    """

    def __init__(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        limits: PruneOptions,
        weights: HeadWeights,
        *,
        count: TokenCounter,
        separator: str,
        ellipsis: str = DEFAULT_ELLIPSIS,
        alone: bool = True,
    ) -> None:
        self.query = query
        self._given, self.views = checked_chunks(query, chunks)
        self.watch = Stopwatch()
        self._limits, self._count, self._separator = limits, count, separator
        self._alone, self._ellipsis = alone, ellipsis
        self._additive = weights.score_scale == "additive"
        self._protected = protected_spans(self.views, limits.protect)
        self.places = unit_places(self.views) if limits.unit == "sentence" else []
        self._units = Counter(index for index, _, _ in self.places)
        self._rendered = [view.rendered for view in self.views]
        self.multi_hop = limits.multi_hop if len(self.views) > 1 else False
        if self.multi_hop is None and (limits.max_missed is None or weights.multi_hop is None):
            self.multi_hop = False
        self.prior: Floats | None = None
        if limits.prior is not None:
            terms = prior_terms(self.views, limits.prior)
            self.prior = None if terms is None else weights.prior_weights[limits.prior] * terms
        if self.views:
            with self.watch.stage("count"):
                self.tokens = self._tokens_of(range(len(self.views)))
        else:
            self.tokens = count("")

    @property
    def pair(self) -> tuple[str, Sequence[Chunk]]:
        """The question and the chunks as they are read."""
        return self.query, self.views

    @property
    def by_unit(self) -> bool:
        """Whether the limits choose among units of the texts."""
        return self._limits.unit == "sentence"

    def without_scores(self) -> PruneResult | None:
        """Return the result where there is nothing to score, or too little to be worth it."""
        limits = self._limits
        if not self.views:
            return self._result((), ())
        small = limits.skip_below_tokens is not None and self.tokens <= limits.skip_below_tokens
        if not small or (limits.max_tokens is not None and self.tokens > limits.max_tokens):
            return None
        note = (
            f"The context has {self.tokens:,} tokens, at most "
            f"skip_below_tokens={limits.skip_below_tokens:,}, "
            "and was kept as it is, without scoring."
        )
        return self._all_kept(note, skipped=True)

    def asks_again(self, read: ChunkScores, *, at_hand: bool) -> bool:
        """Tell whether the question is asked again, after a first reading.

        Args:
            read: What that said of the chunks.
            at_hand: Whether it left the chunks' states, so that none has to be read again.
        """
        if self.multi_hop is not None:
            return self.multi_hop
        limits = self._limits
        likely, max_missed = read.probabilities, limits.max_missed
        if likely is None or max_missed is None or not at_hand:
            return False
        unsupported = read.answerable is not None and read.answerable < UNANSWERABLE_BELOW
        only_one = limits.top_k == 1 or (unsupported and limits.if_unanswerable == "keep_best")
        if unsupported and limits.if_unanswerable == "keep_none":
            return False
        if only_one and not self.by_unit:  # the best chunk stays the best
            return False
        return float(np.delete(likely, np.argmax(read.scores)).sum()) > max_missed

    def after_failure(self, error: Exception, *, shared: Mapping[str, float]) -> PruneResult:
        """Return the result that keeps every chunk because scoring failed; `shared` as below."""
        note = f"Scoring failed, so that all {len(self.views)} chunks were kept, unranked."
        reason = f"{type(error).__name__}: {error}"
        return self._all_kept(note, error=reason, timings=self._timings(shared))

    def with_scores(self, read: ChunkScores, *, shared: Mapping[str, float]) -> PruneResult:
        """Return what is kept by what a reading says of the chunks.

        Args:
            read: Their scores.
            shared: Seconds a stage of this request's part in what was done for one or several.
        """
        scored = scored_chunks(self._given, self.views, read.scores, read.probabilities)
        with self.watch.stage("select"):
            chosen = self._select(
                read.scores,
                read.probabilities,
                read.answerable,
                tokens_of=self._tokens_of,
                always=[index for index, own in enumerate(self._protected) if own],
                novelty=self._novelty([(view.text, view.title) for view in self.views]),
            )
            tokens_after = self._tokens_of(chosen.kept)
        return self._result(
            tuple(scored[index] for index in chosen.kept),
            tuple(scored[index] for index in chosen.dropped),
            tokens_after=tokens_after,
            notes=chosen.notes,
            answerable=read.answerable,
            timings=self._timings(shared),
        )

    def with_unit_scores(
        self, read: ChunkScores, units: UnitScores, *, shared: Mapping[str, float]
    ) -> PruneResult:
        """Return what is kept of the chunks by what is said of their units.

        Args:
            read: As in `with_scores`.
            units: What is said of each of `places`.
            shared: As in `with_scores`.
        """
        scored = scored_chunks(self._given, self.views, read.scores, read.probabilities)
        with self.watch.stage("select"):
            chosen = self._select(
                units.scores,
                units.probabilities,
                read.answerable,
                tokens_of=self._tokens_of_units,
                always=protected_units(self.places, self._protected),
                novelty=self._novelty(
                    [
                        (self.views[index].text[start:end], self.views[index].title)
                        for index, start, end in self.places
                    ],
                    least_words=_LEAST_WORDS,
                ),
                spared=self._spared(),
                what="sentence",
            )
            tokens_after = self._tokens_of_units(chosen.kept)
        spans = kept_spans(self.places, chosen.kept, self._units)
        kept = list(dict.fromkeys(self.places[number][0] for number in chosen.kept))
        others: Sequence[int] = range(len(scored))
        if self._limits.order == "score":
            others = np.argsort(-read.scores, kind="stable").tolist()
        return self._result(
            tuple(
                replace(scored[index], spans=spans[index], ellipsis=self._ellipsis)
                for index in kept
            ),
            tuple(scored[index] for index in others if index not in spans),
            tokens_after=tokens_after,
            notes=chosen.notes if self.places else (*chosen.notes, _NO_TEXT_NOTE),
            answerable=read.answerable,
            timings=self._timings(shared),
        )

    def _select(
        self, scores: Floats, likely: Floats | None, answerable: float | None, **given: Any
    ) -> Selection:
        """Choose by the limits, and by what is to be done where nothing seems to help.

        Args:
            scores: Of chunks or units.
            likely: Their probabilities; None if there are none.
            answerable: How likely it is that anything helps; None if that isn't known.
            given: Further arguments of `select`.
        """
        limits, notes = {name: getattr(self._limits, name) for name in (*LIMITS, "order")}, []
        if answerable is not None and answerable < UNANSWERABLE_BELOW:
            what = self._limits.if_unanswerable
            notes.append(f"Most likely no chunk holds the answer: answerable is {answerable:.2f}.")
            best_is_held = bool(scores.size) and int(np.argmax(scores)) in given["always"]
            if what == "keep_none" or (what == "keep_best" and best_is_held):
                held = hold_only(scores, given["always"], order=self._limits.order)
                return replace(held, notes=tuple(notes))
            if what == "keep_best":
                limits["top_k"] = 1
        if self._additive and limits["top_p"] is not None:
            notes.append(_TOP_P_NOTE)
        if self._limits.prior not in (None, "order") and self.prior is None:
            notes.append(_NO_PRIOR_NOTE.format(self._limits.prior))
        chosen = select(scores, probabilities=likely, **given, **limits)
        return replace(chosen, notes=(*chosen.notes, *notes))

    def _novelty(
        self, texts: Sequence[tuple[str, str | None]], *, least_words: int = 1
    ) -> TextNovelty | None:
        """Return what tells which texts, each with its title, say something new."""
        overlap = self._limits.max_overlap
        if overlap is None:
            return None
        only, titles = [text for text, _ in texts], [title for _, title in texts]
        return TextNovelty(only, titles, overlap, least_words=least_words)

    def _spared(self) -> int:
        """Return how many tokens a unit spares at most in a context that has its chunk already."""
        if self._limits.max_tokens is None:
            return 0
        titles = {view.title or "" for view in self.views}
        return max(map(self._count, titles), default=0) + self._count(
            f"{self._separator} {self._ellipsis} "
        )

    def _tokens_of_units(self, numbers: Sequence[int]) -> int:
        spans = kept_spans(self.places, numbers, self._units)
        indices = dict.fromkeys(self.places[number][0] for number in numbers)
        shown = (self._shown(index, spans[index]) for index in indices)
        return self._count(self._separator.join(shown))

    def _shown(self, index: int, spans: Sequence[tuple[int, int]] | None) -> str:
        if spans is None:
            return self._rendered[index]
        view = self.views[index]
        return Chunk(join_spans(view.text, spans, self._ellipsis), view.title).rendered

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
