"""What is kept and what is dropped, against hand-worked cases and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from at2_rag.errors import InputError, ScoringError
from at2_rag.options import Order
from at2_rag.selection.select import Selection
from tests.selection.options import select

SEEDS = range(100)
SCORES = [0.5, 3.0, -1.0, 3.0, 2.0]


def counter(
    sizes: Sequence[int], separator: int = 0, overhead: int = 0
) -> Callable[[Sequence[int]], int]:
    """The sum of the chunks' sizes, the separators between them and the prompt around them."""

    def tokens_of(indices: Sequence[int]) -> int:
        if not indices:
            return 0
        return overhead + sum(sizes[i] for i in indices) + separator * (len(indices) - 1)

    return tokens_of


# --- single limits ---------------------------------------------------------------------------


def test_top_k_keeps_the_best_in_score_order_with_ties_as_given() -> None:
    assert select(SCORES, top_k=3) == Selection(kept=(1, 3, 4), dropped=(0, 2))


def test_original_order_holds_for_kept_and_dropped() -> None:
    scores = [0.0, 1.0, 5.0, 2.0, 9.0]
    assert select(scores, top_k=2, order="original") == Selection((2, 4), (0, 1, 3))
    assert select(scores, top_k=2, order="score") == Selection((4, 2), (3, 1, 0))


def test_min_score_includes_its_own_value() -> None:
    assert select(SCORES, min_score=2.0) == Selection(kept=(1, 3, 4), dropped=(0, 2))


def test_min_score_above_all_keeps_nothing_and_says_so() -> None:
    selection = select(SCORES, min_score=3.5)
    assert selection.kept == ()
    assert selection.dropped == (1, 3, 4, 0, 2)
    assert selection.notes == ("Nothing was kept: the best score is 3.0, min_score is 3.5.",)


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


def test_separators_count_towards_max_tokens() -> None:
    scores = [3.0, 2.0, 1.0]
    assert select(scores, tokens_of=counter([4, 4, 1], 1), max_tokens=8).kept == (0, 2)
    assert select(scores, tokens_of=counter([4, 4, 1], 1), max_tokens=9).kept == (0, 1)
    assert select(scores, tokens_of=counter([4, 4, 1], 1), max_tokens=11).kept == (0, 1, 2)


def test_best_chunk_over_the_budget_keeps_nothing_and_gives_both_numbers() -> None:
    selection = select([1.0, 9.0], tokens_of=counter([1, 812]), max_tokens=500)
    assert selection.kept == ()
    assert selection.dropped == (1, 0)
    assert selection.notes == (
        "Nothing was kept: the best chunk alone has 812 tokens, max_tokens is 500.",
    )


# --- several limits --------------------------------------------------------------------------


def test_a_chunk_that_does_not_fit_takes_no_top_k_place() -> None:
    tokens_of = counter([5, 6, 1, 4])
    scores = [4.0, 3.0, 2.0, 1.0]
    assert select(scores, tokens_of=tokens_of, max_tokens=10, top_k=2).kept == (0, 2)
    assert select(scores, tokens_of=tokens_of, max_tokens=10, top_k=3).kept == (0, 2, 3)


def test_the_final_order_is_what_is_counted() -> None:
    seen: list[tuple[int, ...]] = []

    def tokens_of(indices: Sequence[int]) -> int:
        seen.append(tuple(indices))
        return len(indices)

    select([1.0, 3.0, 2.0], tokens_of=tokens_of, max_tokens=9, order="original")
    assert (0, 1, 2) in seen
    seen.clear()
    select([1.0, 3.0, 2.0], tokens_of=tokens_of, max_tokens=9, order="score")
    assert (1, 2, 0) in seen


def greedy(
    scores: Sequence[float],
    tokens_of: Callable[[Sequence[int]], int],
    *,
    top_k: int | None,
    max_tokens: int | None,
    min_score: float | None,
    top_p: float | None,
    order: str,
) -> list[int]:
    """The rules taken literally, one chunk at a time, in plain Python."""
    ranking = sorted(range(len(scores)), key=lambda i: -scores[i])
    candidates = ranking
    if top_p is not None:
        shares = [math.exp(scores[i] - max(scores)) for i in ranking]
        for count in range(1, len(ranking) + 1):
            if math.fsum(shares[:count]) / math.fsum(shares) >= top_p - 1e-12:
                candidates = ranking[:count]
                break
    if min_score is not None:
        candidates = [i for i in candidates if scores[i] >= min_score]
    if max_tokens is not None and candidates and tokens_of(candidates[:1]) > max_tokens:
        return []
    kept: list[int] = []
    for index in candidates:
        if top_k is not None and len(kept) == top_k:
            break
        trial = sorted([*kept, index]) if order == "original" else [*kept, index]
        if max_tokens is None or tokens_of(trial) <= max_tokens:
            kept.append(index)
    return sorted(kept) if order == "original" else kept


@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_the_rules_taken_one_chunk_at_a_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    scores = rng.normal(0, 2, n).round(1).tolist()
    largest = int(rng.choice([3, 30, 300]))
    sizes = rng.integers(0, largest + 1, n).tolist()
    overhead = int(rng.choice([0, 1, 500]))
    tokens_of = counter(sizes, int(rng.choice([0, 1, 50])), overhead)
    limits: dict[str, Any] = {
        "top_k": int(rng.integers(1, n + 2)) if rng.random() < 0.5 else None,
        "min_score": float(rng.normal(-1, 1)) if rng.random() < 0.5 else None,
        "top_p": float(1 - rng.random()) if rng.random() < 0.5 else None,
        "max_tokens": overhead + int(rng.integers(1, largest * n)) if rng.random() < 0.7 else None,
    }
    if all(limit is None for limit in limits.values()):
        limits["top_k"] = 1
    order: Order = "original" if rng.random() < 0.5 else "score"
    selection = select(scores, tokens_of=tokens_of, order=order, **limits)
    assert list(selection.kept) == greedy(scores, tokens_of, order=order, **limits)
    assert sorted(selection.kept + selection.dropped) == list(range(n))
    if order == "original":
        assert list(selection.dropped) == sorted(selection.dropped)
    else:
        assert [scores[i] for i in selection.dropped] == sorted(
            (scores[i] for i in selection.dropped), reverse=True
        )


@pytest.mark.parametrize("seed", range(40))
def test_top_p_is_the_smallest_of_all_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, int(rng.integers(1, 9)))
    share = float(1 - rng.random())
    shares = np.exp(scores) / np.exp(scores).sum()
    kept = select(scores, top_p=share).kept
    assert shares[list(kept)].sum() >= share - 1e-9
    for smaller in range(1, len(kept)):
        assert all(shares[list(c)].sum() < share for c in combinations(range(len(scores)), smaller))


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
    assert select([], top_k=1) == Selection((), ())
    assert select([], top_p=0.5, min_score=1.0) == Selection((), ())
    assert select([], max_tokens=5, tokens_of=counter([])) == Selection((), ())


def test_numpy_scores_and_limits_are_taken_and_plain_ints_given_back() -> None:
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


@pytest.mark.parametrize("seed", range(200))
def test_what_is_held_is_kept_and_the_rest_chosen_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    scores = rng.normal(size=count)
    sizes = rng.integers(1, 20, count).tolist()
    always = np.flatnonzero(rng.random(count) < 0.3).tolist()
    top_k = int(rng.integers(1, 5))
    budget = int(rng.integers(1, 60))
    order: Order = "original" if seed % 2 else "score"
    tokens_of = counter(sizes, separator=2)
    ranking = [int(index) for index in np.argsort(-scores)]
    kept = [index for index in ranking if index in always]
    others = [index for index in ranking if index not in always]
    if others and tokens_of([*kept, others[0]]) <= budget:
        for index in others:
            room = len(kept) - len(always) < top_k
            if room and tokens_of([*kept, index]) <= budget:
                kept.append(index)
    found = select(
        scores,
        tokens_of=tokens_of,
        max_tokens=budget,
        top_k=top_k,
        order=order,
        always=always,
    )
    assert sorted(found.kept) == sorted(kept)
    listing = range(count) if order == "original" else ranking
    assert list(found.kept) == [index for index in listing if index in kept]
    over = bool(always) and tokens_of(always) > budget
    assert bool(found.notes) == (over or set(kept) == set(always) and bool(others))


def test_what_is_held_does_not_count_to_top_k_and_needs_no_score() -> None:
    assert select(SCORES, top_k=1, always={2}).kept == (1, 2)
    assert select(SCORES, top_k=1, always={1}).kept == (1, 3)
    found = select(SCORES, min_score=9.0, always={2, 0})
    assert found.kept == (0, 2)
    assert found.notes == (
        "Only what is protected was kept: the best score is 3.0, min_score is 9.0.",
    )
    assert select(SCORES, top_p=0.01, always={4}, order="original").kept == (1, 4)


def test_notes_say_what_was_too_large() -> None:
    sizes = counter([5, 5, 5, 5, 5])
    found = select(SCORES, max_tokens=4, tokens_of=sizes, always={0}, what="sentence")
    assert found.kept == (0,)
    assert found.notes == ("Only what is protected was kept: it has 5 tokens, max_tokens is 4.",)
    found = select(SCORES, max_tokens=9, tokens_of=sizes, always={0}, what="sentence")
    assert found.notes[0].endswith(
        "the best sentence and what is protected have 10 tokens, max_tokens is 9."
    )
    every = select(SCORES, max_tokens=9, tokens_of=sizes, always=range(5))
    assert len(every.kept) == 5 and "it has 25 tokens" in every.notes[0]
