"""What is kept and what is dropped, against hand-worked cases and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from at2_rag.errors import InputError, ScoringError
from at2_rag.options import PruneOptions
from at2_rag.selection import select as module
from at2_rag.selection.novelty import Novelty
from at2_rag.selection.select import Selection

SCORES = [0.5, 3.0, -1.0, 3.0, 2.0]
OPTIONS = {option.name for option in fields(PruneOptions)}


def select(scores: Any, **arguments: Any) -> Selection:
    """Select by options that are passed by name, like the other arguments."""
    options = {name: arguments.pop(name) for name in OPTIONS & arguments.keys()}
    return module.select(scores, PruneOptions(**options), **arguments)


def counter(
    sizes: Sequence[int], separator: int = 0, overhead: int = 0
) -> Callable[[Sequence[int]], int]:
    """The sum of the chunks' sizes, the separators between them and the prompt around them."""

    def tokens_of(indices: Sequence[int]) -> int:
        if not indices:
            return 0
        return overhead + sum(sizes[i] for i in indices) + separator * (len(indices) - 1)

    return tokens_of


class Groups(Novelty):
    """Only the first chunk of each group is new."""

    def __init__(self, groups: Sequence[int]) -> None:
        self._groups = groups
        self._taken: list[int] = []

    def is_new(self, index: int) -> bool:
        return self._groups[index] not in [self._groups[other] for other in self._taken]

    def take(self, index: int) -> None:
        self._taken.append(index)

    def give_back(self, count: int) -> None:
        del self._taken[len(self._taken) - count :]


# --- single limits ---------------------------------------------------------------------------


def test_top_k_keeps_the_best_in_either_order_with_ties_as_in_the_input() -> None:
    assert select(SCORES, top_k=3) == Selection(kept=(1, 3, 4), dropped=(0, 2))
    scores = [0.0, 1.0, 5.0, 2.0, 9.0]
    assert select(scores, top_k=2, order="original") == Selection((2, 4), (0, 1, 3))
    assert select(scores, top_k=2, order="score") == Selection((4, 2), (3, 1, 0))


def test_min_score_includes_its_own_value_and_may_keep_nothing() -> None:
    assert select(SCORES, min_score=2.0) == Selection(kept=(1, 3, 4), dropped=(0, 2))
    note = "Nothing was kept: the best score is 3.0, min_score is 3.5."
    assert select(SCORES, min_score=3.5) == Selection((), (1, 3, 4, 0, 2), (note,))


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.01, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (0.95, 3), (0.96, 4), (1.0, 4)],
)
def test_top_p_on_known_shares(share: float, kept: int) -> None:
    scores = [math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert select(scores, top_p=share).kept == tuple(range(kept))


def test_top_p_reaches_exact_shares_of_equal_scores() -> None:
    for n in (3, 7, 10, 100):
        for k in range(1, n + 1):
            assert len(select([1.0] * n, top_p=k / n).kept) == k


def test_top_p_is_stable_far_from_zero() -> None:
    shares = [math.log(0.6), math.log(0.3), math.log(0.1)]
    for shift in (-1e6, 0.0, 1e6):
        assert select([s + shift for s in shares], top_p=0.85).kept == (0, 1)
    assert select([2000.0, -2000.0, 0.0], top_p=0.999).kept == (0,)


def test_top_p_of_one_keeps_chunks_whose_share_underflows() -> None:
    assert select([2000.0, -2000.0, 0.0], top_p=1).kept == (0, 2, 1)
    assert select([2000.0, -2000.0, 0.0], top_p=1.0, top_k=2).kept == (0, 2)


def test_max_tokens_passes_over_what_does_not_fit() -> None:
    sizes = [5, 6, 1, 4, 3]
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    # 5, not 6 (11), 1 (6), 4 (10), not 3 (13)
    assert select(scores, tokens_of=counter(sizes), max_tokens=10).kept == (0, 2, 3)


def test_best_chunk_over_the_budget_keeps_nothing_and_gives_both_numbers() -> None:
    note = "Nothing was kept: the best chunk alone has 812 tokens, max_tokens is 500."
    selection = select([1.0, 9.0], tokens_of=counter([1, 812]), max_tokens=500)
    assert selection == Selection((), (1, 0), (note,))


# --- several limits --------------------------------------------------------------------------


def test_the_final_order_is_what_is_counted() -> None:
    seen: list[tuple[int, ...]] = []

    def tokens_of(indices: Sequence[int]) -> int:
        seen.append(tuple(indices))
        return len(indices)

    select([1.0, 3.0, 2.0], tokens_of=tokens_of, max_tokens=9, order="original")
    assert (0, 1, 2) in seen and (1, 2, 0) not in seen
    select([1.0, 3.0, 2.0], tokens_of=tokens_of, max_tokens=9, order="score")
    assert (1, 2, 0) in seen


def candidates_of(
    scores: Sequence[float], min_score: float | None, top_p: float | None
) -> list[int]:
    ranking = sorted(range(len(scores)), key=lambda i: -scores[i])
    if top_p is not None:
        shares = [math.exp(scores[i] - max(scores)) for i in ranking]
        for count in range(1, len(ranking) + 1):
            if math.fsum(shares[:count]) / math.fsum(shares) >= top_p - 1e-12:
                ranking = ranking[:count]
                break
    return [i for i in ranking if min_score is None or scores[i] >= min_score]


def greedy(
    candidates: Sequence[int],
    tokens_of: Callable[[Sequence[int]], int],
    groups: Sequence[int],
    always: Sequence[int],
    *,
    top_k: int | None,
    max_tokens: int | None,
) -> tuple[list[int], int]:
    """The rules taken literally, one chunk at a time: what is kept, and how many are redundant."""
    kept, redundant = list(always), 0
    if max_tokens is not None and tokens_of(kept) > max_tokens:
        return kept, 0
    for index in candidates:
        if index in always:
            continue
        if len(kept) - len(always) == top_k:
            break
        if groups[index] in [groups[i] for i in kept]:
            redundant += 1
        elif max_tokens is None or tokens_of([*kept, index]) <= max_tokens:
            kept.append(index)
        elif len(kept) == len(always):  # the best doesn't fit
            break
    return kept, redundant


@pytest.mark.parametrize("seed", range(400))
def test_agrees_with_the_rules_taken_one_chunk_at_a_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    scores = rng.normal(0, 2, n).round(1).tolist()
    largest = int(rng.choice([3, 30, 300]))
    overhead = int(rng.choice([0, 1, 500]))
    sizes = rng.integers(0, largest + 1, n).tolist()
    tokens_of = counter(sizes, int(rng.choice([0, 1, 50])), overhead)
    groups = rng.integers(0, n if seed % 2 else 10**9, n).tolist()
    always = np.flatnonzero(rng.random(n) < rng.choice([0, 0.3])).tolist()
    counts: dict[str, Any] = {
        "top_k": int(rng.integers(1, n + 2)) if rng.random() < 0.5 else None,
        "max_tokens": overhead + int(rng.integers(1, largest * n)) if rng.random() < 0.7 else None,
    }
    limits: dict[str, Any] = {
        "min_score": float(rng.normal(-1, 1)) if rng.random() < 0.5 else None,
        "top_p": float(1 - rng.random()) if rng.random() < 0.5 else None,
    }
    kept, redundant = greedy(candidates_of(scores, **limits), tokens_of, groups, always, **counts)
    for order, listing in (("score", candidates_of(scores, None, None)), ("original", range(n))):
        selection = select(
            scores,
            tokens_of=tokens_of,
            always=always,
            novelty=Groups(groups),
            order=order,
            **counts,
            **limits,
        )
        assert list(selection.kept) == [i for i in listing if i in kept]
        assert list(selection.dropped) == [i for i in listing if i not in kept]
        noted = any("passed over" in note for note in selection.notes)
        if counts["max_tokens"] is None:
            assert noted == bool(redundant)
        assert noted <= bool(redundant)  # some wouldn't have fitted anyway


def test_costs_little_counting_at_any_budget() -> None:
    counted: list[int] = []

    def tokens_of(indices: Sequence[int]) -> int:
        counted.append(len(indices))
        return 200 * len(indices)

    scores = [float(-i) for i in range(1000)]
    cases: list[tuple[dict[str, Any], int, int]] = [
        ({"max_tokens": 200}, 1, 3_100),
        ({"max_tokens": 200 * 500}, 500, 10_000),
        ({"max_tokens": 200 * 1000}, 1000, 2_100),
        ({"max_tokens": 200 * 1000, "top_k": 3}, 3, 10),
    ]
    for limits, kept, most in cases:
        counted.clear()
        selection = select(scores, tokens_of=tokens_of, **limits)
        assert len(selection.kept) == kept
        assert sum(counted) <= most


# --- inputs ----------------------------------------------------------------------------------


def test_no_chunks_give_an_empty_selection() -> None:
    for limits in ({"top_k": 1}, {"top_p": 0.5, "min_score": 1.0}, {"max_tokens": 5}):
        assert select([], tokens_of=counter([]), **limits) == Selection((), ())


def test_numpy_scores_and_limits_are_taken_and_plain_ints_returned() -> None:
    selection = select(np.array([1, 3, 2], dtype=np.float32), top_k=np.int64(2))
    assert selection == Selection((1, 2), (0,))
    assert all(type(i) is int for i in selection.kept + selection.dropped)


def test_without_a_limit_all_are_kept() -> None:
    assert select(SCORES).kept == select(SCORES, top_k=5).kept


def test_max_tokens_needs_a_count() -> None:
    with pytest.raises(InputError, match="tokens_of"):
        select(SCORES, max_tokens=5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_counted_and_the_first_named(bad: float) -> None:
    with pytest.raises(ScoringError, match=rf"2 of 4 scores .* first is {bad} at index 1"):
        select([1.0, bad, 2.0, bad], top_k=1)


# --- what is kept in any case ----------------------------------------------------------------


def test_what_is_held_does_not_count_to_top_k_and_needs_no_score() -> None:
    assert select(SCORES, top_k=1, always={2}).kept == (1, 2)
    assert select(SCORES, top_k=1, always={1}).kept == (1, 3)
    selection = select(SCORES, min_score=9.0, always={2, 0})
    note = "Only what is protected was kept: the best score is 3.0, min_score is 9.0."
    assert (selection.kept, selection.notes) == ((0, 2), (note,))
    assert select(SCORES, top_p=0.01, always={4}, order="original").kept == (1, 4)


def test_notes_say_what_was_too_large() -> None:
    limits: Any = {"tokens_of": counter([5, 5, 5, 5, 5]), "what": "sentence"}
    selection = select(SCORES, max_tokens=4, always={0}, **limits)
    note = "Only what is protected was kept: it has 5 tokens, max_tokens is 4."
    assert (selection.kept, selection.notes) == ((0,), (note,))
    [note] = select(SCORES, max_tokens=9, always={0}, **limits).notes
    assert note.endswith("the best sentence and what is protected have 10 tokens, max_tokens is 9.")
    every = select(SCORES, max_tokens=9, always=range(5), **limits)
    assert len(every.kept) == 5 and "it has 25 tokens" in every.notes[0]


def test_notes_say_how_many_said_the_same() -> None:
    selection = select(SCORES, top_k=2, novelty=Groups([0, 1, 2, 1, 0]))
    note = "1 chunk was passed over: others that are kept say the same."
    assert selection == Selection((1, 4), (3, 0, 2), (note,))
    selection = select(SCORES, top_k=2, novelty=Groups([0, 0, 0, 0, 0]), what="sentence")
    note = "4 sentences were passed over: others that are kept say the same."
    assert (selection.kept, selection.notes) == ((1,), (note,))
