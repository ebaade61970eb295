"""Growing parts of the data: whole groups, alike in all folds and sources, one in the other."""

from __future__ import annotations

import numpy as np

from at2_rag.arrays import Bools
from at2_rag.errors import InputError
from at2_rag.training.fitting.learning_curve import learning_curve

FOLDS = np.repeat(np.arange(4), 20)
"""Samples come in pairs of one group; a fold has eight groups of source "a" and two of "b"."""
GROUPS = [sample // 2 for sample in range(80)]
SOURCES = ["a" if sample % 20 < 16 else "b" for sample in range(80)]


def parts_of(seed: int = 0) -> list[Bools]:
    parts: list[Bools] = []

    def judge(part: Bools) -> dict[str, float | None]:
        parts.append(part)
        return {"quality": float(part.sum())}

    points = learning_curve(GROUPS, SOURCES, FOLDS, judge, seed=seed)
    assert [point.figures["quality"] for point in points] == [part.sum() for part in parts]
    assert [point.share for point in points] == [0.125, 0.25, 0.5, 1.0]
    # Of each fold 1, 2, 4 or 8 groups of "a" and 1, 1, 1 or 2 of "b"; three folds are fitted on.
    assert [point.samples for point in points] == [3 * 2 * groups for groups in (2, 3, 5, 10)]
    return parts


def test_parts_grow_alike_in_every_fold_and_source() -> None:
    parts = parts_of()
    for smaller, larger in zip(parts, parts[1:], strict=False):
        assert (larger | smaller).tolist() == larger.tolist()
    for part in parts:
        whole = part.reshape(-1, 2)
        assert (whole[:, 0] == whole[:, 1]).all()
        assert len({tuple(np.bincount(FOLDS[part]).tolist())}) == 1
        assert len(set(np.bincount(FOLDS[part]))) == 1
    assert parts[-1].all()


def test_the_seed_decides_which_groups_are_taken() -> None:
    first, again, other = parts_of(0), parts_of(0), parts_of(1)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_parts_that_come_to_the_same_are_one_point() -> None:
    calls: list[tuple[int, int]] = []
    points = learning_curve(
        [0, 1, 2, 3],
        ["a"] * 4,
        np.array([0, 0, 1, 1]),
        lambda part: {"n": float(part.sum())},
        seed=0,
        progress=lambda *numbers: calls.append(numbers),
    )
    assert [(point.share, point.samples) for point in points] == [(0.5, 1), (1.0, 2)]
    assert calls == [(0, 2), (1, 2), (2, 2)]


def test_a_part_that_is_too_little_gives_no_point() -> None:
    def judge(part: Bools) -> dict[str, float | None]:
        if part.sum() < 40:
            raise InputError("too little")
        return {"quality": None}

    points = learning_curve(GROUPS, SOURCES, FOLDS, judge, seed=0)
    assert [point.share for point in points] == [0.5, 1.0]
