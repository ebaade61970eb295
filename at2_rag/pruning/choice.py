"""From a request and its scores to what is kept."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from at2_rag.options import UNANSWERABLE_BELOW
from at2_rag.progress import Stopwatch, added
from at2_rag.pruning.request import ContextFormat, Request
from at2_rag.readout.scores import Scores
from at2_rag.results import PruneResult, scored_chunks
from at2_rag.selection.novelty import TextNovelty
from at2_rag.selection.select import Selection, hold_only, select
from at2_rag.text.sentences import Span
from at2_rag.text.units import UnitSpan

_LEAST_WORDS = 8
"""Shorter sentences are never redundant: "It was founded in 1899." may mean anything."""

_NO_TEXT_NOTE = "Nothing was kept: no chunk has any text, so there are no sentences."


def choose(request: Request, scores: Scores, context: ContextFormat) -> PruneResult:
    """Return what the options keep of a request's chunks, at least one."""
    watch = Stopwatch()
    chunks = scores.chunks
    scored = scored_chunks(request.objects, request.chunks, chunks.scores, chunks.probabilities)
    with watch.stage("select"):
        selection = _select(request, scores, context)
        spans = kept_spans(request.units, selection.kept)
        kept = list(dict.fromkeys(request.units[number][0] for number in selection.kept))
        tokens_after = context.tokens_of(
            context.rendered(request.chunks[index], spans[index]) for index in kept
        )
    listing: Sequence[int] = range(len(scored))
    if request.options.order == "score":
        listing = np.argsort(-chunks.scores, kind="stable").tolist()
    return PruneResult(
        request.query,
        kept=tuple(
            scored[index]
            if spans[index] is None
            else replace(scored[index], spans=spans[index], ellipsis=context.ellipsis)
            for index in kept
        ),
        dropped=tuple(scored[index] for index in listing if index not in spans),
        tokens_before=request.tokens,
        tokens_after=tokens_after,
        separator=context.separator,
        notes=selection.notes if request.units else (*selection.notes, _NO_TEXT_NOTE),
        answerable=chunks.answerable,
        timings=added(request.seconds, scores.seconds, watch.seconds()),
    )


def without_scores(request: Request, context: ContextFormat) -> PruneResult | None:
    """Return the result where there is nothing to score, or too little to be worth it."""
    options = request.options
    if not request.chunks:
        return _all_kept(request, context)
    small = options.skip_below_tokens is not None and request.tokens <= options.skip_below_tokens
    if not small or (options.max_tokens is not None and request.tokens > options.max_tokens):
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


def _select(request: Request, scores: Scores, context: ContextFormat) -> Selection:
    """Choose units by the limits, and by what to keep where probably no chunk has the answer."""
    options, units, answerable = request.options, scores.units, scores.chunks.answerable
    always = protected_units(request.units, request.protected)
    notes = (*request.notes, *scores.notes)
    if answerable is not None and answerable < UNANSWERABLE_BELOW:
        note = f"Perhaps no chunk holds the answer: answerable is {answerable:.2f}."
        notes = (note, *notes)
        best_is_held = bool(units.scores.size) and int(np.argmax(units.scores)) in always
        only_best = options.if_unanswerable == "keep_best"
        if options.if_unanswerable == "keep_none" or (only_best and best_is_held):
            return replace(hold_only(units.scores, always, options.order), notes=notes)
        if only_best:
            options = options.override(top_k=1)
    counts = Counter(index for index, _, _ in request.units)

    def tokens_of(numbers: Sequence[int]) -> int:
        spans = kept_spans(request.units, numbers, counts)
        indices = dict.fromkeys(request.units[number][0] for number in numbers)
        return context.tokens_of(
            context.rendered(request.chunks[index], spans[index]) for index in indices
        )

    selection = select(
        units.scores,
        options,
        probabilities=units.probabilities,
        tokens_of=tokens_of,
        always=always,
        novelty=_novelty(request),
        spared=_spared(request, context),
        what=options.unit,
    )
    return replace(selection, notes=(*selection.notes, *notes))


def _novelty(request: Request) -> TextNovelty | None:
    """Return what tells which units say something new; None if duplicates may be kept."""
    if request.options.max_overlap is None:
        return None
    return TextNovelty(
        [request.chunks[index].text[start:end] for index, start, end in request.units],
        [request.chunks[index].title for index, _, _ in request.units],
        request.options.max_overlap,
        least_words=_LEAST_WORDS if request.by_sentence else 1,
    )


def _spared(request: Request, context: ContextFormat) -> int:
    """Return how many tokens a unit spares at most in a context that has its chunk already."""
    if request.options.max_tokens is None or not request.by_sentence:
        return 0
    titles = {chunk.title or "" for chunk in request.chunks}
    joined = context.count(f"{context.separator} {context.ellipsis} ")
    return max(map(context.count, titles), default=0) + joined


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
    units: Sequence[UnitSpan], kept: Iterable[int], counts: Mapping[int, int] | None = None
) -> dict[int, tuple[Span, ...] | None]:
    """Return what is kept of each chunk that has a kept unit, None for all of it.

    Neighbours are joined, with the white space between them.

    Args:
        units: All units, in order.
        kept: Which of them are kept.
        counts: How many units each chunk has; None to count them.
    """
    counts = Counter(index for index, _, _ in units) if counts is None else counts
    runs: dict[int, list[Span]] = {}
    chosen: Counter[int] = Counter()
    before = None
    for number in sorted(kept):
        index, start, end = units[number]
        spans = runs.setdefault(index, [])
        chosen[index] += 1
        if spans and before == number - 1:
            start = spans.pop()[0]
        spans.append((start, end))
        before = number
    return {
        index: None if chosen[index] == counts[index] else tuple(spans)
        for index, spans in runs.items()
    }
