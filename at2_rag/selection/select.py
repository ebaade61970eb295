"""From scores to what is kept: pure arithmetic over indices, no model and no text.

The limits are those of `PruneOptions`, and all that are set must hold. All but `top_k` and
`max_tokens` choose the candidates, which are then taken from the best down. A candidate that does
not fit into `max_tokens`, or says the same as what was taken before, is passed over and doesn't
count towards `top_k`. But where the best candidate doesn't fit even alone nothing is kept, since
lesser chunks in its stead would look like an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats, check_finite, missed_shares
from at2_rag.errors import InputError
from at2_rag.options import UNSURE_BELOW, Order, PruneOptions
from at2_rag.selection.novelty import Novelty

_ROUNDING = 1e-9
"""Shares this close below `top_p` have reached it: .5 + .3 must satisfy .8."""

_SEAM = 16
"""How many more tokens joining one chunk to a context may save than joining another, by merges at
the seams; what a counter adds around any text is the same for all."""

Count = Callable[[Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selection kept and dropped, as indices of the scores.

    Attributes:
        kept: Indices of the kept chunks, by score or as in the input.
        dropped: All other indices, in the same kind of order.
        notes: Plain sentences, for example why nothing was kept.
    """

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    notes: tuple[str, ...] = ()


def select(
    scores: Sequence[float] | npt.NDArray[np.floating[Any]],
    options: PruneOptions,
    *,
    tokens_of: Count | None = None,
    probabilities: Sequence[float] | npt.NDArray[np.floating[Any]] | None = None,
    always: Collection[int] = (),
    novelty: Novelty | None = None,
    spared: int = 0,
    what: str = "chunk",
) -> Selection:
    """Choose which chunks to keep.

    Args:
        scores: [S], one finite score a chunk, larger is better.
        options: The limits and the order; without a limit all are kept.
        tokens_of: Counts the tokens of the context of the chunks with these indices, in this order;
            needed with `max_tokens`. An added chunk must never lower the count.
        probabilities: [S], the probability that each chunk is relevant, rising with the scores;
            needed with `min_probability` and `max_missed`.
        always: Indices that are kept whatever the limits say; they count towards `max_tokens`, but
            not towards `top_k`.
        novelty: Tells which chunks say something new, none taken yet; None if all do.
        spared: Tokens that joining one chunk to a context may save beyond what joining another
            does: those of a heading that several share, for example.
        what: What is chosen, for the notes.

    Raises:
        InputError: If `max_tokens` is set, but not `tokens_of`.
        ScoringError: If a score is NaN or infinite.
    """
    values = np.asarray(scores, dtype=np.float64)
    check_finite(values)
    ranking = np.argsort(-values, kind="stable")
    likely = None if probabilities is None else np.asarray(probabilities, np.float64)[ranking]
    listing = ranking.tolist() if options.order == "score" else list(range(len(values)))
    held = [index for index in listing if index in always]
    eligible = ranking[: _eligible(values[ranking], likely, options)].tolist()
    candidates = [index for index in eligible if index not in always]
    novelty = novelty or Novelty()
    for index in held:
        novelty.take(index)
    kept, passed_over = _distinct(candidates, novelty, options.top_k)
    why: str | None = None
    if not eligible and values.size:
        why = _why_none(values[ranking[0]], likely, options)
    max_tokens = options.max_tokens
    if max_tokens is not None and (held or candidates):
        if tokens_of is None:
            raise InputError("max_tokens needs tokens_of; pass the function that counts")
        count = _in_order(tokens_of, listing)
        if held and (tokens := count(held)) > max_tokens:
            kept, why = [], f"it has {tokens} tokens, max_tokens is {max_tokens}"
        elif kept and (tokens := count([*held, kept[0]])) > max_tokens:
            beside = " and what is protected have" if held else " alone has"
            kept, why = [], f"the best {what}{beside} {tokens} tokens, max_tokens is {max_tokens}"
        elif kept:
            novelty.give_back(len(kept))
            kept, passed_over = _fill(
                candidates, count, held, novelty, max_tokens, options.top_k, _SEAM + spared
            )
    notes = []
    if why is not None:
        notes.append(f"{'Only what is protected' if held else 'Nothing'} was kept: {why}.")
    elif passed_over:
        some = f"1 {what} was" if passed_over == 1 else f"{passed_over} {what}s were"
        notes.append(f"{some} passed over: others that are kept say the same.")
    return _selection(listing, {*kept, *held}, notes)


def hold_only(scores: Floats, always: Collection[int], order: Order) -> Selection:
    """Choose nothing but what is kept whatever the limits say; arguments as in `select`."""
    ranking = np.argsort(-scores, kind="stable") if order == "score" else np.arange(len(scores))
    return _selection(ranking.tolist(), always, ())


def _selection(listing: Sequence[int], chosen: Collection[int], notes: Sequence[str]) -> Selection:
    return Selection(
        kept=tuple(index for index in listing if index in chosen),
        dropped=tuple(index for index in listing if index not in chosen),
        notes=tuple(notes),
    )


def _distinct(
    candidates: Sequence[int], novelty: Novelty, top_k: int | None
) -> tuple[list[int], int]:
    """Take candidates in turn; return them, and how many were passed over for saying the same."""
    kept: list[int] = []
    passed_over = 0
    for index in candidates:
        if len(kept) == top_k:
            break
        if novelty.is_new(index):
            novelty.take(index)
            kept.append(index)
        else:
            passed_over += 1
    return kept, passed_over


def _in_order(tokens_of: Count, listing: Sequence[int]) -> Count:
    """Return a count of chunks that puts them in the order of the list first."""
    position = {index: number for number, index in enumerate(listing)}
    return lambda indices: tokens_of(sorted(indices, key=position.__getitem__))


def _eligible(ranked: Floats, likely: Floats | None, limits: PruneOptions) -> int:
    """Return how many of the best pass the limits on scores, and on probabilities, best first."""
    count = len(ranked)
    if not count:
        return 0
    if limits.min_score is not None:
        count = int(np.count_nonzero(ranked >= limits.min_score))
    # Every share is above zero, so that only all chunks have a mass of 1 (rounding aside).
    if limits.top_p is not None and limits.top_p < 1:
        mass = np.cumsum(np.exp(ranked - ranked[0]) if likely is None else likely)
        reached = mass >= (limits.top_p - _ROUNDING) * mass[-1]
        count = min(count, int(np.argmax(reached)) + 1)
    if limits.min_probability is not None and likely is not None:
        count = min(count, int(np.count_nonzero(likely >= limits.min_probability)))
    if limits.max_missed is not None and likely is not None:
        least = (limits.keep_if_unsure or 1) if likely[0] < UNSURE_BELOW else 1
        enough = int(np.argmax(missed_shares(likely) <= limits.max_missed))
        count = min(count, max(enough, least))
    return count


def _why_none(best: float, likely: Floats | None, limits: PruneOptions) -> str:
    """Return why no chunk passes the limits, given the best one's score and all probabilities."""
    least = limits.min_probability
    if least is not None and likely is not None and likely[0] < least:
        return f"the best probability is {likely[0]}, min_probability is {least}"
    return f"the best score is {best}, min_score is {limits.min_score}"


def _fill(
    candidates: Sequence[int],
    count: Count,
    held: Sequence[int],
    novelty: Novelty,
    max_tokens: int,
    top_k: int | None,
    slack: int,
) -> tuple[list[int], int]:
    """Do as `_distinct`, passing over those that don't fit with what was taken before, too.

    Counting a context costs time in its length, so candidates are tried in blocks: a block that
    fits is taken whole and the next one is twice as long, one that does not is halved. As adding
    a chunk never lowers the count, the outcome is that of trying them one by one. A candidate
    that exceeds the room left by more than joining it could save (what it saved before, and
    `slack` more) is passed over without counting it together with the rest.
    """
    kept = list(held)
    passed_over = 0
    most = len(held) + (len(candidates) if top_k is None else top_k)
    unseen = ((index, count([index])) for index in candidates)
    waiting: list[tuple[int, int]] = []
    size = len(candidates)
    used, saving = count(held) if held else 0, max_tokens
    while wanted := min(size, most - len(kept)):
        room = min(max_tokens, max_tokens - used + saving) if kept else max_tokens
        waiting = [entry for entry in waiting if entry[1] <= room]
        fitting = chain(waiting, (entry for entry in unseen if entry[1] <= room))
        block: list[tuple[int, int]] = []
        looked_at = end = 0
        while len(block) < wanted and (entry := next(fitting, None)) is not None:
            if looked_at == len(waiting):
                waiting.append(entry)
            looked_at += 1
            if novelty.is_new(entry[0]):
                novelty.take(entry[0])
                block.append(entry)
                end = looked_at
        if not block:
            return kept, passed_over + looked_at
        trial = kept + [index for index, _ in block]
        tokens = count(trial)
        if joints := len(block) - (not kept):
            saving = (used + sum(alone for _, alone in block) - tokens) // joints + slack
        if tokens <= max_tokens:
            kept, used = trial, tokens
            size = 2 * len(block)
        else:
            novelty.give_back(len(block))
            if len(block) > 1:
                size = len(block) // 2
                continue
        passed_over += end - len(block)
        waiting = waiting[end:]
    return kept, passed_over
