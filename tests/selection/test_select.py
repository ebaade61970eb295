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
from at2_rag.selection.filling import ContextTokens
from at2_rag.selection.novelty import Novelty
from at2_rag.selection.select import Selection

SCORES = [0.5, 3.0, -1.0, 3.0, 2.0]
OPTIONS = {option.name for option in fields(PruneOptions)}


def select(scores: Any, **arguments: Any) -> Selection:
    """Select by options that are passed by name, like the other arguments."""
    options = {name: arguments.pop(name) for name in OPTIONS & arguments.keys()}
    return module.select(scores, PruneOptions(**options), **arguments)


def counter(
    sizes: Sequence[int], separator: int = 0, overhead: int = 0, counted: list[str] | None = None
) -> ContextTokens:
    """Words: of the chunks, of the separators between them and of the prompt around them."""

    def count(text: str) -> int:
        if counted is not None:
            counted.append(text)
        return overhead + len(text.split())

    texts = ["w " * size for size in sizes]
    return ContextTokens(count, " | " * separator, lambda indices: [texts[i] for i in indices])


class Groups(Novelty):
    """Only the first chunk of each group is new."""

    def __init__(self, groups: Sequence[int]) -> None:
        self._groups = groups
        self._taken: list[int] = []

    def holder(self, index: int) -> int | None:
        same = [other for other in self._taken if self._groups[other] == self._groups[index]]
        return same[0] if same else None

    def take(self, index: int) -> None:
        self._taken.append(index)

    def forget(self) -> None:
        self._taken.clear()


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
    assert select(scores, tokens=counter(sizes), max_tokens=10).kept == (0, 2, 3)


def test_a_best_chunk_over_the_budget_gives_way_to_what_fits() -> None:
    limits: Any = {"tokens": counter([1, 812, 499, 2]), "max_tokens": 500}
    size = "best chunk alone has 812 tokens, max_tokens is 500"
    note = f"The {size}: it was dropped, and others that fit were kept."
    assert select([1.0, 9.0, 3.0, 2.0], **limits) == Selection((2, 0), (1, 3), (note,))
    note = f"Nothing was kept: the {size}, and nothing else fits."
    assert select([1.0, 9.0], min_score=5, **limits) == Selection((), (1, 0), (note,))


@pytest.mark.parametrize("order", ["score", "original"])
def test_of_a_best_chunk_over_the_budget_the_best_parts_are_kept(order: str) -> None:
    sizes = [30, 90, 5, 60, 25, 3]  # chunk 1 has the parts 3, 4 and 5
    seen: list[int] = []

    def parts(index: int) -> list[int]:
        seen.append(index)
        return [4, 3, 5]

    limits: Any = {"tokens": counter(sizes), "parts": parts, "max_tokens": 62, "order": order}
    selection = select([1.0, 9.0, 5.0], **limits)
    note = "The best chunk alone has 90 tokens, max_tokens is 62: what fits of it was kept."
    assert selection.notes == (note,) and seen == [1]
    # 25, not 60, 3 (28), then chunk 2 (33), not chunk 0
    assert selection.kept == (4, 5, 2)
    assert selection.dropped == (0,)
    # A chunk kept in part is one of top_k.
    assert set(select([1.0, 9.0, 5.0], top_k=1, **limits).kept) == {4, 5}
    assert set(select([1.0, 9.0, 5.0], always=[0], top_k=2, **limits).kept) == {0, 4, 5}
    assert select([9.0, 1.0, 5.0], **limits).kept == (0, 2)
    assert len(seen) == 3, "the best one fits"


# --- several limits --------------------------------------------------------------------------


def test_the_final_order_is_what_is_counted() -> None:
    for order, expected in (("original", "abc"), ("score", "bca")):
        seen: list[str] = []
        tokens = ContextTokens(
            lambda text, seen=seen: seen.append(text) or len(text),  # type: ignore[misc]
            "",
            lambda indices: ["abc"[i] for i in indices],
        )
        select([1.0, 3.0, 2.0], tokens=tokens, max_tokens=3, order=order)
        [whole] = {text for text in seen if set(text) == set("abc") and len(text) == 3}
        assert whole == expected


def candidates_of(
    scores: Sequence[float],
    groups: Sequence[int],
    always: Sequence[int],
    *,
    min_score: float | None,
    top_p: float | None,
) -> list[int]:
    """The best that pass the limits, of which only the first of a group counts."""
    ranking = sorted(range(len(scores)), key=lambda i: -scores[i])
    new = [
        i
        for rank, i in enumerate(ranking)
        if i in always or groups[i] not in [groups[j] for j in (*always, *ranking[:rank])]
    ]
    count = len(new)
    if top_p is not None:
        shares = [math.exp(scores[i] - max(scores)) for i in new]
        whole = math.fsum(shares)
        enough = (n for n in range(1, count + 1) if math.fsum(shares[:n]) / whole >= top_p - 1e-12)
        count = next(enough, count)
    if min_score is not None:
        count = min(count, sum(scores[i] >= min_score for i in new))
    end = ranking.index(new[count]) if count < len(new) else len(ranking)
    return ranking[:end] if count else []


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
    if max_tokens is not None and kept and tokens_of(kept) > max_tokens:
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
    return kept, redundant


@pytest.mark.parametrize("seed", range(400))
def test_agrees_with_the_rules_taken_one_chunk_at_a_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    scores = rng.normal(0, 2, n).round(1).tolist()
    largest = int(rng.choice([3, 30, 300]))
    overhead = int(rng.choice([0, 1, 500]))
    sizes = rng.integers(0, largest + 1, n).tolist()
    separator = int(rng.choice([0, 1, 50]))

    def tokens_of(indices: Sequence[int]) -> int:
        between = separator * (len(indices) - 1)
        return overhead + sum(sizes[i] for i in indices) + between if indices else 0

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
    candidates = candidates_of(scores, groups, always, **limits)
    kept, redundant = greedy(candidates, tokens_of, groups, always, **counts)
    ranking = sorted(range(n), key=lambda i: -scores[i])
    for order, listing in (("score", ranking), ("original", range(n))):
        selection = select(
            scores,
            tokens=counter(sizes, separator, overhead),
            always=always,
            novelty=Groups(groups),
            order=order,
            **counts,
            **limits,
        )
        assert list(selection.kept) == [i for i in listing if i in kept]
        assert list(selection.dropped) == [i for i in listing if i not in kept]
        assert len(selection.duplicates) == redundant
        for index, holder in selection.duplicates:
            assert groups[index] == groups[holder] and index not in kept and holder in kept


def test_costs_little_counting_at_any_budget() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 350, 1000).tolist()
    scores = [float(-i) for i in range(1000)]
    for limits in ({}, {"top_k": 3}):
        for max_tokens in (350, 200 * 500, 350 * 1000):
            counted: list[str] = []
            selection = select(
                scores, tokens=counter(sizes, 1, counted=counted), max_tokens=max_tokens, **limits
            )
            whole = [text for text in counted if text.count("|") > 2]
            assert len(selection.kept) > 300 or max_tokens == 350 or limits
            assert len(whole) < 16  # contexts of several chunks
            assert len(counted) - len(whole) < 1_020  # chunks, each once


@pytest.mark.parametrize("step", [1, 3, 4])
@pytest.mark.parametrize("seed", range(20))
def test_an_odd_counter_never_leads_over_the_limit(step: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = ["w" * int(size) for size in rng.integers(1, 30, 60)]

    def count(text: str) -> int:  # what parts have says little of what the whole has
        return int(len(text) ** (1 + step / 8)) // step

    tokens = ContextTokens(count, "\n", lambda indices: [texts[i] for i in indices])
    most = int(rng.integers(1, 3000))
    kept = select(rng.normal(size=60), tokens=tokens, max_tokens=most).kept
    assert not kept or count("\n".join(texts[i] for i in kept)) <= most


# --- inputs ----------------------------------------------------------------------------------


def test_no_chunks_give_an_empty_selection() -> None:
    for limits in ({"top_k": 1}, {"top_p": 0.5, "min_score": 1.0}, {"max_tokens": 5}):
        assert select([], tokens=counter([]), **limits) == Selection((), ())


def test_numpy_scores_and_limits_are_taken_and_plain_ints_returned() -> None:
    selection = select(np.array([1, 3, 2], dtype=np.float32), top_k=np.int64(2))
    assert selection == Selection((1, 2), (0,))
    assert all(type(i) is int for i in selection.kept + selection.dropped)


def test_without_a_limit_all_are_kept() -> None:
    assert select(SCORES).kept == select(SCORES, top_k=5).kept


def test_max_tokens_needs_a_count() -> None:
    with pytest.raises(InputError, match="needs tokens"):
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
    limits: Any = {"tokens": counter([5, 5, 5, 5, 5]), "what": "sentence"}
    selection = select(SCORES, max_tokens=4, always={0}, **limits)
    note = "Only what is protected was kept: it has 5 tokens, max_tokens is 4."
    assert (selection.kept, selection.notes) == ((0,), (note,))
    [note] = select(SCORES, max_tokens=9, always={0}, **limits).notes
    assert "the best sentence and what is protected have 10 tokens, max_tokens is 9, and" in note
    every = select(SCORES, max_tokens=9, always=range(5), **limits)
    assert len(every.kept) == 5 and "it has 25 tokens" in every.notes[0]


def test_copies_use_up_no_limit() -> None:
    likely = [0.9, 0.9, 0.9, 0.9, 0.9, 0.6]
    novelty = Groups([0, 0, 0, 0, 0, 1])
    options = {"probabilities": likely, "max_missed": 0.15}
    assert select(likely, novelty=novelty, **options).kept == (0, 5)
    low = [0.45, 0.45, 0.45, 0.3]
    options = {"probabilities": low, "max_missed": 0.9, "keep_at_least": 0.9}
    assert select(low, novelty=Groups([0, 0, 0, 1]), **options).kept == (0, 3)


def test_what_says_the_same_comes_with_what_it_is_the_same_as() -> None:
    selection = select(SCORES, top_k=2, novelty=Groups([0, 1, 2, 1, 0]))
    assert selection == Selection((1, 4), (3, 0, 2), (), duplicates=((3, 1),))
    selection = select(SCORES, always=[2], novelty=Groups([0, 0, 0, 0, 0]))
    assert (selection.kept, selection.notes) == ((2,), ())
    assert selection.duplicates == ((1, 2), (3, 2), (4, 2), (0, 2))
