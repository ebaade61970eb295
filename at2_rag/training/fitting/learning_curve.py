"""The learning curve: how good a design is, fitted on growing parts of the data.

It answers whether more data would help. Every fold's training samples are thinned alike, in whole
groups, and what was fitted is judged on the whole fold that was held out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError

SHARES = (0.125, 0.25, 0.5, 1.0)

Part: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """One point of the curve.

    Attributes:
        share: Part of the groups that was fitted on, in (0, 1].
        samples: Mean over folds of the number of samples fitted on.
        figures: Out-of-fold figures by name; None where they can't be computed.
    """

    share: float
    samples: float
    figures: Mapping[str, float | None]


def learning_curve(
    groups: Sequence[int],
    sources: Sequence[str],
    folds: npt.NDArray[np.int64],
    judge: Callable[[Part], Mapping[str, float | None]],
    *,
    seed: int,
    shares: Sequence[float] = SHARES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LearningPoint, ...]:
    """Return the curve's points, smallest part first.

    Larger parts hold the smaller ones. Of every fold and source the same share of groups is
    taken, at least one; shares that come to the same samples give one point. A part that is too
    little to fit on gives none.

    Args:
        groups: Each sample's group; a group is taken whole.
        sources: Each sample's data set.
        folds: [I] int64, each sample's fold.
        judge: Takes the samples [I] bool that may be fitted on and returns out-of-fold figures;
            raises InputError where they are too few.
        seed: Of the order in which groups are taken.
        shares: Parts to fit on, rising, in (0, 1].
        progress: Called with the number of parts done and in all.
    """
    parts: dict[bytes, tuple[float, Part]] = {}
    ranks = _ranks(groups, sources, folds, np.random.default_rng(seed))
    for share in shares:
        part = ranks < share
        parts[part.tobytes()] = (share, part)
    points = []
    progress(0, len(parts))
    for done, (share, part) in enumerate(parts.values(), start=1):
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
) -> npt.NDArray[np.float64]:
    """Return each sample's rank, [I] in [0, 1): the share of its fold and source before it."""
    strata: dict[tuple[int, str], dict[int, None]] = defaultdict(dict)
    stratum_of: dict[int, tuple[int, str]] = {}
    for group, source, fold in zip(groups, sources, folds.tolist(), strict=True):
        strata[stratum_of.setdefault(group, (fold, source))][group] = None
    rank: dict[int, float] = {}
    for stratum in strata.values():
        members = list(stratum)
        for before, index in enumerate(rng.permutation(len(members))):
            rank[members[index]] = before / len(members)
    return np.array([rank[group] for group in groups])
