"""From scores to what is kept: pure arithmetic over indices, no model and no text.

The limits are those of `PruneOptions`, and all that are set must hold. All but `top_k` and
`max_tokens` choose the candidates, which are then taken from the best down. A candidate that does
not fit into `max_tokens`, or says the same as what was taken before, is passed over and doesn't
count towards `top_k`. Of the best candidate, where it doesn't fit even alone, as much is kept as
fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Floats, check_finite, missed_shares
from at2_rag.errors import InputError
from at2_rag.options import Order, PruneOptions
from at2_rag.selection.filling import ContextTokens, Filling
from at2_rag.selection.novelty import Novelty

_ROUNDING = 1e-9
"""Shares this close below `top_p` have reached it: .5 + .3 must satisfy .8."""

Parts = Callable[[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selection kept and dropped, as indices of the scores.

    Attributes:
        kept: Indices of the kept chunks, by score or as in the input. Of a chunk that was kept in
            part it has the indices of the parts.
        dropped: All other indices, in the same kind of order.
        notes: Plain sentences, for example why nothing was kept.
        duplicates: Pairs of a dropped chunk and a kept one that says all that it says.
    """

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    notes: tuple[str, ...] = ()
    duplicates: tuple[tuple[int, int], ...] = ()


def select(
    scores: Sequence[float] | npt.NDArray[np.floating[Any]],
    options: PruneOptions,
    *,
    tokens: ContextTokens | None = None,
    probabilities: Sequence[float] | npt.NDArray[np.floating[Any]] | None = None,
    always: Collection[int] = (),
    novelty: Novelty | None = None,
    parts: Parts = lambda index: (),
    what: str = "chunk",
) -> Selection:
    """Choose which chunks to keep.

    Args:
        scores: [S], one finite score a chunk, larger is better.
        options: The limits and the order; without a limit all are kept.
        tokens: Counts the tokens of contexts; needed with `max_tokens`. An added chunk must never
            lower the count.
        probabilities: [S], the probability that each chunk is relevant, rising with the scores;
            needed with `min_probability`, `min_p` and `max_missed`.
        always: Indices that are kept whatever the limits say; they count towards `max_tokens`, but
            not towards `top_k`.
        novelty: Tells which chunks say something new, none taken yet; None if all do.
        parts: Returns new indices, from S on, of the parts of the best chunk if that has too many
            tokens, best first; none if it has no parts.
        what: What is chosen, for the notes.

    Raises:
        InputError: If `max_tokens` is set, but not `tokens`.
        ScoringError: If a score is NaN or infinite.
    """
    values = np.asarray(scores, dtype=np.float64)
    check_finite(values)
    ranking = np.argsort(-values, kind="stable")
    likely = None if probabilities is None else np.asarray(probabilities, np.float64)[ranking]
    listing = list(range(len(values))) if options.order == "original" else ranking.tolist()
    always = frozenset(always)
    held = [index for index in listing if index in always]
    novelty = novelty or Novelty()
    new = _new(ranking.tolist(), held, novelty)
    count = _eligible(values[ranking][new], None if likely is None else likely[new], options)
    ends = [*np.flatnonzero(new).tolist(), len(ranking)]  # before which that many are new
    eligible = ranking[: ends[count] if count else 0].tolist()
    candidates = [index for index in eligible if index not in always]
    why: str | None = None
    if not eligible and values.size:
        why = _why_none(values[ranking[0]], likely, options)
    if options.max_tokens is None:
        kept, duplicates = _take(candidates, novelty, options.top_k, lambda index: [index])
        return _selection(listing, {*held, *kept}, _notes(why, held), duplicates)
    if tokens is None:
        raise InputError("max_tokens needs tokens; pass what counts them")
    budget = _Budget(Filling(tokens, listing, options.max_tokens, held), listing, parts)
    if held and (count := budget.filling.tokens_with()) > options.max_tokens:
        candidates, why = [], f"it has {count} tokens, max_tokens is {options.max_tokens}"
    _, duplicates = _take(candidates, novelty, options.top_k, budget.add)
    kept = budget.filling.finish()
    notes = []
    if budget.best_tokens is not None:
        beside = " and what is protected have" if held else " alone has"
        size = (
            f"best {what}{beside} {budget.best_tokens} tokens, max_tokens is {options.max_tokens}"
        )
        if len(kept) == len(held):
            why = f"the {size}, and nothing else fits"
        elif budget.trimmed:
            notes.append(f"The {size}: what fits of it was kept.")
        else:
            notes.append(f"The {size}: it was dropped, and others that fit were kept.")
    return _selection(listing, {*kept}, [*notes, *_notes(why, held)], duplicates)


def _notes(why_none: str | None, held: Sequence[int]) -> list[str]:
    if why_none is None:
        return []
    return [f"{'Only what is protected' if held else 'Nothing'} was kept: {why_none}."]


def hold_only(scores: Floats, always: Collection[int], order: Order) -> Selection:
    """Choose nothing but what is kept whatever the limits say; arguments as in `select`."""
    original = order == "original"
    ranking = np.arange(len(scores)) if original else np.argsort(-scores, kind="stable")
    return _selection(ranking.tolist(), always)


def _selection(
    listing: Sequence[int],
    chosen: Collection[int],
    notes: Sequence[str] = (),
    duplicates: Sequence[tuple[int, int]] = (),
) -> Selection:
    return Selection(
        kept=tuple(index for index in listing if index in chosen),
        dropped=tuple(index for index in listing if index not in chosen),
        notes=tuple(notes),
        duplicates=tuple(pair for pair in duplicates if pair[1] in chosen),
    )


def _new(ranking: Sequence[int], held: Sequence[int], novelty: Novelty) -> Bools:
    """Tell which say something new beside what is held and those ranked before them, [S].

    Of copies one counts towards the limits. Leaves what is held as taken.
    """
    for index in held:
        novelty.take(index)
    new = np.ones(len(ranking), dtype=bool)
    for position, index in enumerate(ranking):
        if index not in held:
            new[position] = novelty.holder(index) is None
            if new[position]:
                novelty.take(index)
    novelty.forget()
    for index in held:
        novelty.take(index)
    return new


def _take(
    candidates: Sequence[int],
    novelty: Novelty,
    top_k: int | None,
    add: Callable[[int], Sequence[int]],
) -> tuple[list[int], list[tuple[int, int]]]:
    """Take candidates in turn.

    Returns:
        What was taken, and for each candidate that says nothing new what says the same.
    """
    kept: list[int] = []
    duplicates: list[tuple[int, int]] = []
    taken = 0
    for index in candidates:
        if taken == top_k:
            break
        if (holder := novelty.holder(index)) is not None:
            duplicates.append((index, holder))
        elif added := add(index):
            taken += 1
            kept += added
            for number in added:
                novelty.take(number)
    return kept, duplicates


class _Budget:
    """Adds candidates to a context that fit; of the first one, if it doesn't, the parts that do."""

    def __init__(self, filling: Filling, listing: list[int], parts: Parts) -> None:
        self.filling, self._listing, self._parts = filling, listing, parts
        self.best_tokens: int | None = None  # of a first candidate that doesn't fit
        self.trimmed = self._tried = False

    def add(self, index: int) -> list[int]:
        """Return what was added: the candidate, parts of it or nothing."""
        first, self._tried = not self._tried, True
        if self.filling.add(index, exact=first):
            return [index]
        if not first:
            return []
        self.best_tokens = self.filling.tokens_with(index)
        parts = self._parts(index)
        position = self._listing.index(index)
        self._listing[position : position + 1] = parts
        added = [part for part in parts if self.filling.add(part)]
        self._listing[position : position + len(parts)] = added or [index]
        self.trimmed = bool(added)
        return added


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
    least = max(1, math.ceil((limits.keep_at_least or 0.0) * len(ranked) - _ROUNDING))
    if limits.min_p is not None and likely is not None:
        count = min(count, max(int(np.count_nonzero(likely >= limits.min_p * likely[0])), least))
    if limits.max_missed is not None and likely is not None:
        enough = int(np.argmax(missed_shares(likely) <= limits.max_missed))
        count = min(count, max(enough, least))
    return count


def _why_none(best: float, likely: Floats | None, limits: PruneOptions) -> str:
    """Return why no chunk passes the limits, given the best one's score and all probabilities."""
    least = limits.min_probability
    if least is not None and likely is not None and likely[0] < least:
        return f"the best probability is {likely[0]}, min_probability is {least}"
    return f"the best score is {best}, min_score is {limits.min_score}"
