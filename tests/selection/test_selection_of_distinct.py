"""Chunks that say the same: only the best of them is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from at2_rag.selection.select import Selection
from tests.selection.options import select
from tests.selection.test_select import SCORES, counter


class Groups:
    """A novelty by which only the first chunk of each group is new."""

    def __init__(self, groups: Sequence[int]) -> None:
        self._groups = groups
        self._taken: list[int] = []

    def is_new(self, index: int) -> bool:
        return self._groups[index] not in [self._groups[own] for own in self._taken]

    def take(self, index: int) -> None:
        self._taken.append(index)

    def give_back(self, count: int) -> None:
        del self._taken[len(self._taken) - count :]


@pytest.mark.parametrize("seed", range(300))
def test_of_those_that_say_the_same_the_best_that_fits_is_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    scores = rng.normal(size=count)
    sizes = rng.integers(1, 20, count).tolist()
    groups = rng.integers(0, int(rng.integers(1, 20)), count).tolist()
    always = np.flatnonzero(rng.random(count) < 0.1).tolist()
    top_k = int(rng.integers(1, 9)) if rng.random() < 0.5 else None
    budget = int(rng.integers(1, 200)) if top_k is None or rng.random() < 0.5 else None
    tokens_of = counter(sizes, separator=2)
    ranking = [int(index) for index in np.argsort(-scores)]
    held = [index for index in ranking if index in always]
    kept, passed_over, first = list(held), 0, True
    for index in ranking:
        if index in always or (top_k is not None and len(kept) - len(held) == top_k):
            continue
        if groups[index] in [groups[own] for own in kept]:
            passed_over += 1
            continue
        fits = budget is None or tokens_of([*kept, index]) <= budget
        if first and not fits:
            break
        first = False
        if fits:
            kept.append(index)
    found = select(
        scores,
        tokens_of=tokens_of,
        max_tokens=budget,
        top_k=top_k,
        always=always,
        novelty=Groups(groups),
    )
    assert list(found.kept) == [index for index in ranking if index in kept]
    told = any("passed over" in note for note in found.notes)
    assert told <= bool(passed_over)  # some wouldn't have fitted anyway
    if budget is None:
        assert told == bool(passed_over)


def test_notes_say_how_many_said_the_same() -> None:
    found = select(SCORES, top_k=2, novelty=Groups([0, 1, 2, 1, 0]))
    assert found == Selection(
        (1, 4), (3, 0, 2), ("1 chunk was passed over: others that are kept say the same.",)
    )
    found = select(SCORES, top_k=2, novelty=Groups([0, 0, 0, 0, 0]), what="sentence")
    assert found.kept == (1,)
    assert found.notes == ("4 sentences were passed over: others that are kept say the same.",)
