"""How well a calibration carries over to data sets that had no part in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.calibration import Calibration
from at2_rag.errors import InputError
from at2_rag.training.calibration_fit import LabelledCall, fit_calibration, logistic_fit
from at2_rag.training.fit import fit_listwise
from at2_rag.training.losses import ListwiseData
from at2_rag.training.probability_metrics import (
    auroc,
    brier_skill,
    calibration_error,
    equal_bins,
)
from at2_rag.training.validation import source_weights

RIDGE = 1e-2
"""Ridge penalty of the head weights that are fitted without a source."""

_LENGTH_RIDGE = 1e-3  # keeps slopes finite

Readout = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Features [S, F] to scores [S]."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How good probabilities are on one data set.

    Attributes:
        source: The data set.
        chunks: Chunks judged.
        matter: Share of them that matter.
        error: Expected calibration error over all chunks.
        error_of_best: The same over each call's best chunk.
        skill: Brier skill over the base rate.
        skill_of_gold: The same with gold labels as outcomes.
        calls: Calls judged for whether anything helps.
        auroc: Area under the curve of their probabilities.
        error_of_calls: Expected calibration error of those.
        auroc_of_lengths: Area under the curve of what can be told from the number of chunks and
            their lengths alone: well above one half, twins differ in more than the evidence.
        reliability: For each bin of chunks its mean probability and the share that matter.
    """

    source: str
    chunks: int
    matter: float
    error: float
    error_of_best: float
    skill: float
    skill_of_gold: float
    calls: int
    auroc: float
    error_of_calls: float
    auroc_of_lengths: float
    reliability: tuple[tuple[float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values; None for what isn't defined."""
        values = asdict(self)
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in values.items()
        }


def judge_left_out_sources(
    calls: Sequence[LabelledCall],
    shape: tuple[int, int, int],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[CalibrationFigures]:
    """Yield for each source the figures of head weights and calibration fitted without it.

    Sources without outcomes of both chunks and calls are fitted on but not judged.

    Args:
        calls: Calls of at least two sources.
        shape: [P, L, H] of the head weights.
        progress: Called with the sources done and in all.

    Raises:
        InputError: If there is one source only, or what is left of the others can't be fitted to.
    """
    if len({own.source for own in calls}) < 2:
        raise InputError(
            f"all calls are of the source {calls[0].source!r}; pass examples of two sources or "
            "more, so that one can be left out"
        )
    names = sorted(
        {own.source for own in calls if own.matters is not None}
        & {own.source for own in calls if own.supported is not None}
    )
    for done, name in enumerate(names):
        progress(done, len(names))
        others = [own for own in calls if own.source != name]
        readout = fit_readout(others)
        calibration = fit_calibration(others, out_of_fold_scores(others), shape)
        judged = [own for own in calls if own.source == name]
        yield judge_calibration(
            judged,
            readout,
            calibration,
            source=name,
            by_lengths=auroc_of_lengths(judged, others),
        )
    progress(len(names), len(names))


def out_of_fold_scores(calls: Sequence[LabelledCall]) -> list[Floats]:
    """Return each call's scores by head weights that were fitted without its fold."""
    readouts = {
        fold: fit_readout([own for own in calls if own.fold != fold])
        for fold in {own.fold for own in calls}
    }
    return [readouts[own.fold](own.features) for own in calls]


def fit_readout(calls: Sequence[LabelledCall]) -> Readout:
    """Return head weights fitted to rank the gold chunks of calls that have both kinds.

    Twins are left out: of an unanswerable one nothing can be ranked, and to have seen the other
    would tell them apart.
    """
    ranked = [
        own for own in calls if own.supported is None and own.gold.any() and not own.gold.all()
    ]
    if not ranked:
        raise InputError("there is no call with gold and other chunks left to fit weights to")
    fit = fit_listwise(
        ListwiseData(
            np.concatenate([own.features for own in ranked]),
            np.concatenate([own.gold for own in ranked]),
            np.array([len(own.gold) for own in ranked]),
            source_weights([own.source for own in ranked]),
        ),
        ridge=RIDGE,
    )
    return lambda features: features @ fit.weight + fit.bias


def judge_calibration(
    calls: Sequence[LabelledCall],
    readout: Readout,
    calibration: Calibration,
    *,
    source: str,
    by_lengths: float,
) -> CalibrationFigures:
    """Return how good the probabilities of a calibration are.

    Args:
        calls: Calls that had no part in the fit.
        readout: The head weights' scores.
        calibration: Fitted to them.
        source: The data set's name.
        by_lengths: What `auroc_of_lengths` gave.
    """
    likely, best, matters, gold = [], [], [], []
    supported: list[tuple[float, bool]] = []
    for own in calls:
        scores = readout(own.features)
        evidence = float(calibration.evidence(own.features).max())
        if own.matters is not None:
            probabilities = calibration.probabilities(scores, evidence)
            place = int(np.argmax(scores))
            likely.append(probabilities)
            best.append((float(probabilities[place]), bool(own.matters[place])))
            matters.append(own.matters)
            gold.append(own.gold)
        if own.supported is not None:
            supported.append((calibration.supported(scores, evidence), own.supported))
    p, y, g = np.concatenate(likely), np.concatenate(matters), np.concatenate(gold)
    best_p, best_y = _columns(best)
    call_p, call_y = _columns(supported)
    return CalibrationFigures(
        source=source,
        chunks=len(p),
        matter=float(y.mean()),
        error=calibration_error(p, y),
        error_of_best=calibration_error(best_p, best_y),
        skill=brier_skill(p, y),
        skill_of_gold=brier_skill(p, g),
        calls=len(call_p),
        auroc=auroc(call_p, call_y),
        error_of_calls=calibration_error(call_p, call_y),
        auroc_of_lengths=by_lengths,
        reliability=tuple((float(p[own].mean()), float(y[own].mean())) for own in equal_bins(p)),
    )


def auroc_of_lengths(judged: Sequence[LabelledCall], others: Sequence[LabelledCall]) -> float:
    """Return how well the number of chunks and their lengths alone tell supported calls.

    Args:
        judged: Calls to tell apart.
        others: Calls that a logistic function of them is fitted to.
    """

    def terms(calls: Sequence[LabelledCall]) -> tuple[Floats, Bools]:
        known = [own for own in calls if own.supported is not None and own.words is not None]
        sizes = [own.words.astype(float) for own in known if own.words is not None]
        values = [[len(own), own.sum(), own.max(), own.min(), own.std()] for own in sizes]
        return np.array(values), np.array([bool(own.supported) for own in known])

    values, outcomes = terms(others)
    if not len(values):
        return math.nan
    *slopes, constant = logistic_fit(
        values, outcomes, np.full(len(values), 1 / len(values)), _LENGTH_RIDGE
    )
    values, outcomes = terms(judged)
    if not len(values):
        return math.nan
    return auroc(values @ np.array(slopes) + constant, outcomes)


def _columns(pairs: Sequence[tuple[float, bool]]) -> tuple[Floats, Bools]:
    return np.array([p for p, _ in pairs]), np.array([y for _, y in pairs], dtype=bool)
