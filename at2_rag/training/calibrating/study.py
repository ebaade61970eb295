"""How well a calibration carries over to data sets that had no part in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError
from at2_rag.readout.calibration import Calibration
from at2_rag.training.calibrating.metrics import (
    auroc,
    brier_skill,
    calibration_error,
    error_by_chance,
    reliability,
)
from at2_rag.training.calibrating.probabilities import LabelledCall, fit_calibration, logistic_fit
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import source_weights

RIDGE = 1e-2
"""Ridge penalty of the head weights that are fitted without a source."""

_LENGTH_RIDGE = 1e-3  # keeps slopes finite

Readout = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Features [S, F] to scores [S]."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_NONE: Bools = np.zeros(0, dtype=bool)


EVERY = "every source"
"""What the figures of all data sets taken together are called."""


@dataclass(frozen=True, slots=True, eq=False)
class _Predicted:
    """Probabilities with their outcomes, of calls that had no part in what they were fitted to.

    Attributes:
        likely: [N], that each chunk matters.
        matters: [N] bool, whether it does.
        gold: [N] bool, whether it is gold.
        best: [C] places of each call's best chunk.
        answerable: [K], that anything helps in each call that is judged for that.
        helped: [K] bool, whether anything does.
    """

    likely: Floats
    matters: Bools
    gold: Bools
    best: npt.NDArray[np.intp]
    answerable: Floats
    helped: Bools


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How good probabilities are on one data set.

    Attributes:
        source: The data set, or `EVERY`.
        chunks: Chunks judged.
        matter: Share of them that matter.
        error: Expected calibration error over all chunks.
        error_of_best: The same over each call's best chunk.
        error_by_chance: What the expected calibration error of perfect probabilities would be, for
            it is never zero; `error_of_best_by_chance` likewise.
        error_of_best_by_chance: See there.
        error_of_gold: The error with gold labels as outcomes.
        skill: Brier skill over the base rate.
        skill_of_gold: The same with gold labels as outcomes.
        calls: Calls judged for whether anything helps.
        auroc: Area under the curve of their probabilities.
        error_of_calls: Expected calibration error of those.
        auroc_of_lengths: Area under the curve of what can be told from the number of chunks and
            their lengths alone: well above one half, twins differ in more than the evidence.
        reliability: For each bin of chunks its mean probability and the share that matter.
        reliability_of_best: The same for the best chunks.
        reliability_of_calls: The same for calls, whether anything helps.
    """

    source: str
    chunks: int
    matter: float
    error: float
    error_of_best: float
    error_by_chance: float
    error_of_best_by_chance: float
    error_of_gold: float
    skill: float
    skill_of_gold: float
    calls: int
    auroc: float
    error_of_calls: float
    auroc_of_lengths: float
    reliability: tuple[tuple[float, float], ...]
    reliability_of_best: tuple[tuple[float, float], ...]
    reliability_of_calls: tuple[tuple[float, float], ...]

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

    Sources without outcomes of both chunks and calls are fitted on but not judged. Of two sources
    or more the figures of all of them follow, each chunk and call judged by what was fitted without
    its source.

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
        & {own.source for own in calls if own.answerable is not None}
    )
    every: list[_Predicted] = []
    lengths: list[tuple[Floats, Bools]] = []
    for done, name in enumerate(names):
        progress(done, len(names))
        others = [own for own in calls if own.source != name]
        judged = [own for own in calls if own.source == name]
        _, readout, calibration = fit_without(others, shape)
        every.append(_predict(judged, readout, calibration))
        lengths.append(told_by_lengths(judged, others))
        yield _figures(name, every[-1], lengths[-1])
    if len(every) > 1:
        yield _figures(EVERY, _joined(every), _columns_joined(lengths))
    progress(len(names), len(names))


def fit_without(
    calls: Sequence[LabelledCall], shape: tuple[int, int, int]
) -> tuple[list[Floats], Readout, Calibration]:
    """Return out-of-fold scores of calls, and head weights and calibration fitted to all of them.

    Args:
        calls: Those of all sources but the one that is left out.
        shape: As in `judge_left_out_sources`, like what is raised.
    """
    scores = out_of_fold_scores(calls)
    return scores, fit_readout(calls), fit_calibration(calls, scores, shape)


def said_of(
    call: LabelledCall, readout: Readout, calibration: Calibration
) -> tuple[Floats, Floats, float]:
    """Return a call's scores, its chunks' probabilities and that anything helps."""
    scores = readout(call.features)
    evidence = float(calibration.evidence(call.features).max())
    likely = calibration.probabilities(scores, evidence)
    return scores, likely, calibration.answerable(scores, evidence)


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
        own for own in calls if own.answerable is None and own.gold.any() and not own.gold.all()
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


def _predict(
    calls: Sequence[LabelledCall], readout: Readout, calibration: Calibration
) -> _Predicted:
    likely, matters, gold, best = [np.zeros(0)], [_NONE], [_NONE], []
    answerable: list[tuple[float, bool]] = []
    chunks = 0
    for own in calls:
        scores, of_chunks, of_call = said_of(own, readout, calibration)
        if own.matters is not None:
            likely.append(of_chunks)
            matters.append(own.matters)
            gold.append(own.gold)
            best.append(chunks + int(np.argmax(scores)))
            chunks += len(scores)
        if own.answerable is not None:
            answerable.append((of_call, own.answerable))
    return _Predicted(
        np.concatenate(likely),
        np.concatenate(matters),
        np.concatenate(gold),
        np.array(best, dtype=np.intp),
        np.array([p for p, _ in answerable]),
        np.array([y for _, y in answerable], dtype=bool),
    )


def _joined(parts: Sequence[_Predicted]) -> _Predicted:
    """Return the predictions of several data sets as those of one."""
    starts = np.cumsum([0, *(len(own.likely) for own in parts)])
    return _Predicted(
        np.concatenate([own.likely for own in parts]),
        np.concatenate([own.matters for own in parts]),
        np.concatenate([own.gold for own in parts]),
        np.concatenate([own.best + start for own, start in zip(parts, starts, strict=False)]),
        np.concatenate([own.answerable for own in parts]),
        np.concatenate([own.helped for own in parts]),
    )


def _figures(source: str, own: _Predicted, by_lengths: tuple[Floats, Bools]) -> CalibrationFigures:
    best_p, best_y = own.likely[own.best], own.matters[own.best]
    return CalibrationFigures(
        source=source,
        chunks=len(own.likely),
        matter=float(own.matters.mean()),
        error=calibration_error(own.likely, own.matters),
        error_of_best=calibration_error(best_p, best_y),
        error_by_chance=error_by_chance(own.likely),
        error_of_best_by_chance=error_by_chance(best_p),
        error_of_gold=calibration_error(own.likely, own.gold),
        skill=brier_skill(own.likely, own.matters),
        skill_of_gold=brier_skill(own.likely, own.gold),
        calls=len(own.answerable),
        auroc=auroc(own.answerable, own.helped),
        error_of_calls=calibration_error(own.answerable, own.helped),
        auroc_of_lengths=auroc(*by_lengths),
        reliability=reliability(own.likely, own.matters),
        reliability_of_best=reliability(best_p, best_y),
        reliability_of_calls=reliability(own.answerable, own.helped),
    )


def told_by_lengths(
    judged: Sequence[LabelledCall], others: Sequence[LabelledCall]
) -> tuple[Floats, Bools]:
    """Return how likely it is from the number of chunks and their lengths alone that calls help.

    Args:
        judged: Calls to tell apart.
        others: Calls that a logistic function of them is fitted to.

    Returns:
        Logits [K], and whether anything helps; none where lengths aren't known.
    """

    def terms(calls: Sequence[LabelledCall]) -> tuple[Floats, Bools]:
        known = [own for own in calls if own.answerable is not None and own.words is not None]
        sizes = [own.words.astype(float) for own in known if own.words is not None]
        values = [[len(own), own.sum(), own.max(), own.min(), own.std()] for own in sizes]
        return np.array(values), np.array([bool(own.answerable) for own in known], dtype=bool)

    values, outcomes = terms(others)
    judged_values, judged_outcomes = terms(judged)
    if not len(values) or not len(judged_values):
        return np.zeros(0), _NONE
    *slopes, constant = logistic_fit(
        values, outcomes, np.full(len(values), 1 / len(values)), _LENGTH_RIDGE
    )
    return judged_values @ np.array(slopes) + constant, judged_outcomes


def _columns_joined(parts: Sequence[tuple[Floats, Bools]]) -> tuple[Floats, Bools]:
    logits, outcomes = zip(*parts, strict=True)
    return np.concatenate(logits), np.concatenate(outcomes)
