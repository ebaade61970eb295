"""Fits multi-hop weights. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError
from at2_rag.readout.calibration import RISING, chunk_terms
from at2_rag.readout.multi_hop import MultiHop, divided_anew, second_scores
from at2_rag.training.calibrating.probabilities import PENALTY, logistic_fit
from at2_rag.training.fitting.fit import LinearFit, fit_listwise
from at2_rag.training.fitting.intervals import percentile_interval
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import source_weights

RIDGE = 0.1
"""Ridge penalty on the weights of standardised features."""

TOP = 3
"""Chunks among which all gold ones are looked for."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class FollowedCall:
    """One call, and what the second reading saw.

    Attributes:
        source: The data set it is from.
        fold: Its fold.
        scores: [S], the first scores of all its chunks, at least two.
        gold: [S] bool.
        evidence: The greatest evidence logit of the first reading.
        features: [S - 1, L x H] float32, of all chunks but the one with the greatest score.
        place: Its place among all calls.
    """

    source: str
    fold: int
    scores: Floats
    gold: Bools
    evidence: float
    features: npt.NDArray[np.float32]
    place: int = 0

    @property
    def best(self) -> int:
        """The place of the best chunk."""
        return int(np.argmax(self.scores))

    @property
    def others(self) -> Bools:
        """Which chunks are not the best one, [S]."""
        others: Bools = np.arange(len(self.scores)) != self.best
        return others

    @property
    def first(self) -> Floats:
        """The first scores of the others."""
        return self.scores[self.others]


@dataclass(frozen=True, slots=True)
class MultiHopFigures:
    """In how many calls the best three hold all gold chunks, of calls with two or three.

    Attributes:
        source: The data set, or "every source".
        calls: Calls judged.
        without: Share of them by first scores.
        with_it: Share of them after a multi-hop that was fitted without the call's fold.
        low: Lower end of the 95 % percentile bootstrap interval of the difference.
        high: Its upper end.
    """

    source: str
    calls: int
    without: float
    with_it: float
    low: float
    high: float


def fit_multi_hop(calls: Sequence[FollowedCall], shape: tuple[int, int]) -> MultiHop:
    """Return the multi-hop under which gold chunks other than the best are likeliest.

    Weights are fitted to calls with gold among the other chunks, each counting the same, by the
    listwise loss of `training.fit`; probabilities to all calls, by weights fitted without their
    fold, every source counting the same.

    Args:
        calls: The calls, of at least two folds.
        shape: [L, H], layers and heads of the weights.

    Raises:
        InputError: If no call, or none beside a fold, has gold and no gold among the others.
    """
    second = out_of_fold_second(calls)
    terms = [
        chunk_terms(divided_anew(own.first, scores), own.evidence)
        for own, scores in zip(calls, second, strict=True)
    ]
    sizes = [len(own) for own in second]
    weights = np.repeat(source_weights([own.source for own in calls]) / sizes, sizes)
    outcomes = np.concatenate([own.gold[own.others] for own in calls])
    chunk = logistic_fit(np.concatenate(terms), outcomes, weights, PENALTY, rising=RISING)
    fit = _fit(calls)
    weight = fit.weight[1:].reshape(shape).astype(np.float32)
    return MultiHop(weight, max(0.0, float(fit.weight[0])), chunk)


def out_of_fold_second(calls: Sequence[FollowedCall]) -> list[Floats]:
    """Return each call's second scores by weights that were fitted without its fold."""
    fits = {
        fold: _fit([own for own in calls if own.fold != fold]) for fold in {c.fold for c in calls}
    }
    return [_inputs(own) @ fits[own.fold].weight for own in calls]


def scores_after(calls: Sequence[FollowedCall]) -> dict[int, Floats]:
    """Return each call's scores after a multi-hop fitted without its fold, [S], by its place."""
    return {
        own.place: second_scores(own.scores, own.best, second)
        for own, second in zip(calls, out_of_fold_second(calls), strict=True)
    }


def judge_multi_hop(calls: Sequence[FollowedCall]) -> list[MultiHopFigures]:
    """Return the figures of each source that has calls with two or three gold chunks, and of all.

    Args:
        calls: As in `fit_multi_hop`.
    """
    found: dict[str, list[tuple[bool, bool]]] = {}
    for own, second in zip(calls, out_of_fold_second(calls), strict=True):
        if 2 <= own.gold.sum() <= TOP:
            after = second_scores(own.scores, own.best, second)
            found.setdefault(own.source, []).append(
                (_all_gold(own.scores, own.gold), _all_gold(after, own.gold))
            )
    every = [pair for own in found.values() for pair in own]
    groups = {**dict(sorted(found.items())), **({"every source": every} if every else {})}
    return [_figures(name, np.array(pairs, dtype=float)) for name, pairs in groups.items()]


def _figures(name: str, pairs: npt.NDArray[np.floating[Any]]) -> MultiHopFigures:
    gained = pairs[:, 1] - pairs[:, 0]
    low, high = percentile_interval([gained], np.mean)
    without, with_it = pairs.mean(axis=0).tolist()
    return MultiHopFigures(name, len(pairs), without, with_it, low, high)


def _all_gold(scores: Floats, gold: Bools) -> bool:
    return bool(gold[np.argsort(-scores, kind="stable")[:TOP]].sum() == gold.sum())


def _fit(calls: Sequence[FollowedCall]) -> LinearFit:
    chosen = [own for own in calls if 0 < own.gold[own.others].sum() < own.others.sum()]
    if not chosen:
        raise InputError(
            "multi-hop weights can't be fitted: there is no call whose best chunk leaves gold and "
            "other chunks; pass more examples with two gold chunks, or leave --multi-hop off"
        )
    return fit_listwise(
        ListwiseData(
            np.concatenate([_inputs(own) for own in chosen]),
            np.concatenate([own.gold[own.others] for own in chosen]),
            np.array([len(own.features) for own in chosen]),
            np.full(len(chosen), 1 / len(chosen)),
        ),
        ridge=RIDGE,
    )


def _inputs(own: FollowedCall) -> npt.NDArray[np.float32]:
    return np.hstack([own.first[:, None].astype(np.float32), own.features])
