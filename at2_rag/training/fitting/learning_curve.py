"""The learning curve: how good a design is, fitted on growing parts of the data.

It answers whether more data would help. Every fold's training samples are thinned alike, in whole
groups, and what was fitted is judged on the whole fold that was held out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import InputError

SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """One point of the curve."""

    share: float  # part of the groups that was fitted on, in (0, 1]
    samples: float  # samples fitted on, mean over folds
    figures: Mapping[str, float | None]  # out of fold, by name; None: can't be computed


def learning_curve(
    groups: Sequence[int],
    sources: Sequence[str],
    folds: npt.NDArray[np.int64],
    judge: Callable[[Bools], Mapping[str, float | None]],
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LearningPoint, ...]:
    """Return the curve's points, one for each of `SHARES`, smallest first.

    Larger parts hold the smaller ones. Of every fold and source the same share of groups is
    taken, at least one; shares that come to the same samples give one point. A part that is too
    little to fit on, which `judge` refuses with an InputError, gives none.
    """
    ranks = _ranks(groups, sources, folds, np.random.default_rng(seed))
    parts = {(ranks < share).tobytes(): share for share in SHARES}  # the largest of equal ones
    points = []
    progress(0, len(parts))
    for done, share in enumerate(parts.values(), start=1):
        part = ranks < share
        fitted = [int((part & (folds != fold)).sum()) for fold in np.unique(folds)]
        with suppress(InputError):  # a fold has too few samples; larger parts may do
            points.append(LearningPoint(share, float(np.mean(fitted)), judge(part)))
        progress(done, len(parts))
    return tuple(points)


def _ranks(
    groups: Sequence[int],
    sources: Sequence[str],
    folds: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> Floats:
    """Return each sample's rank, [I] in [0, 1): the share of its fold and source before it."""
    stratum_of: dict[int, tuple[int, str]] = {}
    for group, source, fold in zip(groups, sources, folds.tolist(), strict=True):
        stratum_of.setdefault(group, (fold, source))
    strata: dict[tuple[int, str], list[int]] = defaultdict(list)
    for group, stratum in stratum_of.items():
        strata[stratum].append(group)
    rank: dict[int, float] = {}
    for members in strata.values():
        for before, index in enumerate(rng.permutation(len(members))):
            rank[members[index]] = before / len(members)
    return np.array([rank[group] for group in groups])
