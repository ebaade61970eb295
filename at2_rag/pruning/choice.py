"""From a request and its scores to what is kept."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from at2_rag.arrays import Floats
from at2_rag.options import UNANSWERABLE_BELOW
from at2_rag.progress import Stopwatch, added
from at2_rag.pruning.request import ContextFormat, Request, is_skipped
from at2_rag.readout.scores import Scores, UnitScores
from at2_rag.results import PruneResult, ScoredSentence, scored_chunks, scored_sentences
from at2_rag.selection.filling import ContextTokens
from at2_rag.selection.near_duplicates import NearDuplicates
from at2_rag.selection.novelty import Containment, Novelty
from at2_rag.selection.select import Selection, hold_only, select
from at2_rag.text.chunks import DEFAULT_ELLIPSIS, Chunk
from at2_rag.text.sentences import Span, sentence_spans
from at2_rag.text.units import UnitSpan, text_units

logger = logging.getLogger(__name__)

_LEAST_WORDS = 8
"""Shorter sentences are never redundant: "It was founded in 1899." may mean anything."""

_NO_TEXT_NOTE = "Nothing was kept: no chunk has any text, so there are no sentences."


_MOST_NAMED = 5
"""Duplicates that a note names."""

ScoreUnits = Callable[[str, Sequence[Chunk], Sequence[UnitSpan]], Floats]


def choose(
    request: Request, scores: Scores, context: ContextFormat, score_units: ScoreUnits
) -> PruneResult:
    """Return what the options keep of a request's chunks, at least one.

    `score_units` scores the parts of the best chunk, if that alone exceeds `max_tokens`.
    """
    watch = Stopwatch()
    chunks = scores.chunks
    scored = scored_chunks(request.objects, request.chunks, chunks.scores, chunks.probabilities)
    with watch.stage("select"):
        choice = _Choice(request, context, score_units)
        selection = choice.select(scores)
        kept_units = [choice.units[number] for number in selection.kept]
        spans = kept_spans(kept_units, request.chunks)
        kept = choice.chunks_of(kept_units)
        duplicates = choice.duplicates(selection)
        tokens_after = context.tokens_of(
            context.rendered(request.chunks[index], spans[index]) for index in kept
        )
    listing: Sequence[int] = range(len(scored))
    if request.options.order != "original":
        listing = np.argsort(-chunks.scores, kind="stable").tolist()
    if request.options.order == "best_last":
        listing = listing[::-1]
    notes = [*selection.notes, *_duplicates_note(request.chunks, duplicates)]
    if not request.units:
        notes.append(_NO_TEXT_NOTE)
    return PruneResult(
        request.query,
        kept=tuple(
            replace(
                scored[index],
                spans=spans[index],
                ellipsis=DEFAULT_ELLIPSIS if spans[index] is None else context.ellipsis,
                duplicates=tuple(
                    request.chunks[other].id or other for other in duplicates.get(index, ())
                ),
            )
            for index in kept
        ),
        dropped=tuple(scored[index] for index in listing if index not in spans),
        tokens_before=request.tokens,
        tokens_after=tokens_after,
        separator=context.separator,
        notes=tuple(notes),
        answerable=chunks.answerable,
        sentences=_sentences(request, scores.units),
        timings=added(request.seconds, scores.seconds, watch.seconds()),
    )


def _sentences(request: Request, units: UnitScores) -> tuple[ScoredSentence, ...]:
    if not request.by_sentence:
        return ()
    return scored_sentences(request.chunks, request.units, units.scores, units.probabilities)


def without_scores(request: Request, context: ContextFormat) -> PruneResult | None:
    """Return the result where there is nothing to score, or too little to be worth it."""
    options = request.options
    if not request.chunks:
        return _all_kept(request, context)
    if not is_skipped(options, request.tokens):
        return None
    note = (
        f"The context has {request.tokens:,} tokens, at most "
        f"skip_below_tokens={options.skip_below_tokens:,}, "
        "and was kept as it is, without scoring."
    )
    return replace(_all_kept(request, context, note), skipped=True)


def after_failure(
    request: Request, context: ContextFormat, error: Exception, seconds: Mapping[str, float]
) -> PruneResult:
    """Return the result that keeps every chunk because scoring failed after so many seconds."""
    note = f"Scoring failed, so that all {len(request.chunks)} chunks were kept, unranked."
    return replace(
        _all_kept(request, context, note),
        error=f"{type(error).__name__}: {error}",
        timings=added(request.seconds, seconds),
    )


def _all_kept(request: Request, context: ContextFormat, *notes: str) -> PruneResult:
    unknown = np.full(len(request.chunks), np.nan)
    return PruneResult(
        request.query,
        kept=scored_chunks(request.objects, request.chunks, unknown),
        dropped=(),
        tokens_before=request.tokens,
        tokens_after=request.tokens,
        separator=context.separator,
        notes=notes,
        timings=request.seconds,
    )


class _Choice:
    """Chooses among the units of a request, and the parts of one that is too large."""

    def __init__(self, request: Request, context: ContextFormat, score_units: ScoreUnits) -> None:
        self._request, self._context, self._score_units = request, context, score_units
        self.units = list(request.units)  # and the parts

    def select(self, scores: Scores) -> Selection:
        """Choose by the limits, and by what to keep where probably no chunk has the answer."""
        request, units, answerable = self._request, scores.units, scores.chunks.answerable
        options, notes = request.options, (*request.notes, *scores.notes)
        always = protected_units(request.units, request.protected)
        if (
            options.keep_at_least is not None
            and options.min_p is None
            and options.max_missed is None
        ):
            notes = (
                *notes,
                f"keep_at_least={options.keep_at_least:g} has no effect without min_p or "
                "max_missed; the other limits hold.",
            )
        if answerable is not None and answerable < UNANSWERABLE_BELOW:
            note = f"Probably no chunk holds the answer: answerable is {answerable:.3f}."
            notes = (note, *notes)
            best_is_held = bool(units.scores.size) and int(np.argmax(units.scores)) in always
            only_best = options.if_unanswerable == "keep_best"
            if options.if_unanswerable == "keep_none" or (only_best and best_is_held):
                if not always:
                    logger.warning("Nothing was kept. %s", note)
                return replace(hold_only(units.scores, always, options.order), notes=notes)
            if only_best:
                options = options.override(top_k=1)
        tokens = None
        if options.max_tokens is not None:
            tokens = ContextTokens(
                self._context.count, self._context.separator, self._texts_of, self.units
            )
        selection = select(
            units.scores,
            options,
            probabilities=units.probabilities,
            tokens=tokens,
            always=always,
            novelty=self._novelty(),
            parts=self._parts,
            what=options.unit,
        )
        if not selection.kept:
            logger.warning("%s", " ".join(selection.notes) or _NO_TEXT_NOTE)
        return replace(selection, notes=(*selection.notes, *notes))

    def chunks_of(self, units: Sequence[UnitSpan]) -> list[int]:
        """Return the indices of the chunks of selected units, in the order of the context."""
        indices = list(dict.fromkeys(index for index, _, _ in units))
        return indices[::-1] if self._request.options.order == "best_last" else indices

    def duplicates(self, selection: Selection) -> dict[int, list[int]]:
        """Return for each kept chunk the others whose units say nothing that it doesn't say."""
        others: dict[int, list[int]] = {}
        for unit, holder in selection.duplicates:
            index, held = self.units[holder][0], self.units[unit][0]
            if index != held and held not in others.setdefault(index, []):
                others[index].append(held)
        return others

    def _texts_of(self, numbers: Sequence[int]) -> list[str]:
        units, chunks = [self.units[number] for number in numbers], self._request.chunks
        spans = kept_spans(units, chunks)
        return [
            self._context.rendered(chunks[index], spans[index]) for index in self.chunks_of(units)
        ]

    def _novelty(self) -> Novelty | None:
        """Return what tells which units say something new; None if duplicates may be kept."""
        overlap, least = self._request.options.max_overlap, 1
        if overlap is None:
            return None
        if self._request.by_sentence:
            least = _LEAST_WORDS
        if overlap == 1:
            return Containment(self._unit, least_words=least)
        return NearDuplicates(self._unit, overlap, least_words=least)

    def _unit(self, number: int) -> Chunk:
        """Return the text of a unit, with its chunk's title."""
        index, start, end = self.units[number]
        chunk = self._request.chunks[index]
        return Chunk(chunk.text[start:end], chunk.title)

    def _parts(self, number: int) -> list[int]:
        """Return the numbers of new units, the parts of one, best first.

        They are the sentences and blocks of a chunk, and the lines of such a unit if it is too
        large; its first line, which is the head of a table, comes before its others.
        """
        index, offset, end = self.units[number]
        chunk, most = self._request.chunks[index], self._request.options.max_tokens
        spans: list[Span] = []
        lines_of: list[slice] = []
        for start, stop in text_units(chunk.text[offset:end]):
            unit = chunk.text[offset + start : offset + stop]
            too_large = most is not None and self._context.count(unit) > most
            lines = sentence_spans(unit) if too_large else [(0, len(unit))]
            if "\n" in unit:  # not the sentences of a paragraph
                lines_of.append(slice(len(spans), len(spans) + len(lines)))
            spans += [(offset + start + first, offset + start + last) for first, last in lines]
        if not spans:
            return []
        scores = self._score_units(
            self._request.read_query, [chunk], [(0, *span) for span in spans]
        )
        for unit_lines in lines_of:
            scores[unit_lines.start] = scores[unit_lines].max()
        added = len(self.units)
        self.units += [(index, *span) for span in spans]
        return [added + int(part) for part in np.argsort(-scores, kind="stable")]


def _duplicates_note(
    chunks: Sequence[Chunk], duplicates: Mapping[int, Sequence[int]]
) -> Iterable[str]:
    """Yield a note that names dropped chunks, or such that sentences were dropped of."""

    def name(index: int) -> str:
        label = chunks[index].id
        return f"chunk {index} ({label!r:.60})" if label else f"chunk {index}"

    pairs = [
        f"{name(other)} (in {name(index)})"
        for index, others in duplicates.items()
        for other in others
    ]
    if pairs:
        more = f" and {len(pairs) - _MOST_NAMED} more" if len(pairs) > _MOST_NAMED else ""
        yield f"Dropped, since all of it is kept: {', '.join(pairs[:_MOST_NAMED])}{more}."


def protected_units(units: Sequence[UnitSpan], protected: Sequence[Sequence[Span]]) -> list[int]:
    """Return which units overlap a protected range of their chunk, ascending.

    A chunk's ranges are ascending, and none overlaps another.
    """
    ends = [[end for _, end in spans] for spans in protected]
    numbers = []
    for number, (index, start, end) in enumerate(units):
        first = bisect_right(ends[index], start)
        if first < len(ends[index]) and protected[index][first][0] < end:
            numbers.append(number)
    return numbers


def kept_spans(
    units: Iterable[UnitSpan], chunks: Sequence[Chunk]
) -> dict[int, tuple[Span, ...] | None]:
    """Return what kept units keep of each chunk that has one, None for all of it.

    Units with nothing but white space between them are joined, with that white space.
    """
    runs: dict[int, list[Span]] = {}
    for index, start, end in sorted(units):
        spans = runs.setdefault(index, [])
        if spans and not chunks[index].text[spans[-1][1] : start].strip():
            start = spans.pop()[0]
        spans.append((start, end))
    return {
        index: None if _is_whole(chunks[index].text, spans) else tuple(spans)
        for index, spans in runs.items()
    }


def _is_whole(text: str, spans: Sequence[Span]) -> bool:
    [(start, end), *others] = spans
    return not others and not text[:start].strip() and not text[end:].strip()
