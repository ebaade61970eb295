"""How good probabilities are on each source in turn, by what was fitted without it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.options import UNANSWERABLE_BELOW
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.shortlist import Design, Shortlist
from at2_rag.training.calibrating.fits import EVERY, Labelled, fit_ranking
from at2_rag.training.calibrating.metrics import (
    auroc,
    brier_skill,
    calibration_error,
    error_by_chance,
    reliability,
)
from at2_rag.training.calibrating.probabilities import (
    CalibrationSample,
    fit_calibration,
    with_evidence,
    with_evidence_of,
)
from at2_rag.training.fitting.fit import LinearFit

RIDGE = 1e-2  # of the head weights

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How good probabilities are on one data set.

    Errors are expected calibration errors, skills are Brier skills over the base rate.
    """

    source: str  # or `EVERY`
    chunks: int  # chunks judged
    relevant: float  # share of them that are gold
    expected: float  # sum of their probabilities, as a multiple of how many are gold
    error: float
    error_of_best: float  # over each question's best chunk
    error_by_chance: float  # that perfect probabilities would have, never zero
    error_of_best_by_chance: float
    skill: float
    calls: int  # lists of all kinds, judged for whether they are answerable
    auroc: float  # area under the ROC curve of the probability that they are
    auroc_of_twins: float  # the same of lists that differ in nothing but whether they are
    lost: float  # share of the answerable that count as unanswerable, below `UNANSWERABLE_BELOW`
    recognised: float  # share of the unanswerable that do
    error_of_calls: float
    reliability: Points  # for each bin of chunks the mean probability, and the share relevant
    reliability_of_best: Points
    reliability_of_calls: Points

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values; None for what isn't defined."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a fit that never saw a sample predicts of it."""

    sample: CalibrationSample
    scores: Floats  # [S]
    probabilities: Floats  # [S], that each chunk is relevant
    answerable: float  # probability that any chunk holds the answer
    calibration: Calibration  # what made these of scores and features


Score: TypeAlias = Callable[[CalibrationSample], Floats]
"""Returns the scores [S] of a sample's chunks."""

ScoreWithout: TypeAlias = Callable[[Sequence[CalibrationSample]], Score]
"""Takes the samples that aren't left out, and returns what scores any sample, these included.

No sample is scored by a fit to its question.
"""


def predict_left_out_sources(
    samples: Sequence[CalibrationSample],
    shape: tuple[int, int, int],
    score_without: ScoreWithout,
    *,
    linked: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Prediction]:
    """Predict each source by head weights, shaped [P, L, H], and a calibration without it.

    Sources that share a number in `linked` are left out together; None if each is by itself. There
    is no prediction where nothing would be left.
    """
    sources = sorted({sample.source for sample in samples})
    numbers = linked or {source: number for number, source in enumerate(sources)}
    groups = sorted({numbers[source] for source in sources})
    predictions: list[Prediction] = []
    for done, group in enumerate(groups if len(groups) > 1 else []):
        progress(done, len(groups))
        others = [sample for sample in samples if numbers[sample.source] != group]
        score = score_without(others)
        calibration = fit_calibration(with_evidence(others, list(map(score, others))), shape)
        predictions += [
            predict(sample, score(sample), calibration)
            for sample in samples
            if numbers[sample.source] == group
        ]
    progress(len(groups), len(groups))
    return predictions


def judge_sources(predictions: Sequence[Prediction]) -> list[CalibrationFigures]:
    """Return figures of each source that has lists with an answer and without, and of all last."""
    by_source: dict[str, list[Prediction]] = defaultdict(list)
    for row in predictions:
        by_source[row.sample.source].append(row)
    judged = {
        source: rows
        for source, rows in sorted(by_source.items())
        if len({row.sample.is_answered for row in rows}) == 2
    }
    figures = [_figures(source, rows) for source, rows in judged.items()]
    if len(figures) > 1:
        figures.append(_figures(EVERY, [row for rows in judged.values() for row in rows]))
    return figures


def predict_own_questions(
    samples: Sequence[CalibrationSample], weights: HeadWeights
) -> tuple[list[Prediction], list[Prediction]]:
    """Predict samples by calibrated weights as they are, and adapted to the samples of other folds.

    The weights were fitted to none of them.
    """
    calibration, shape = weights.calibration, weights.weight.shape
    assert calibration is not None  # else there is nothing to adapt
    scores = [weights.score(sample.features) for sample in samples]
    scored = with_evidence_of(calibration, samples, scores)
    before = [predict(sample, values, calibration) for sample, values, _ in scored]
    adapted = {
        fold: fit_calibration(
            [row for row in scored if row.sample.fold != fold], shape, start=calibration
        )
        for fold in {sample.fold for sample in samples}
    }
    after = [predict(sample, values, adapted[sample.fold]) for sample, values, _ in scored]
    return before, after


def score_by_refit(shortlist: Shortlist | None = None) -> ScoreWithout:
    """Return what fits head weights to lists as retrieved, of other folds where one is fitted to.

    `shortlist` is what the samples were read with. The late scores that it adds are fitted anew,
    too; which chunks the other passes read was decided by late weights that may know all sources.
    """

    def without(others: Sequence[CalibrationSample]) -> Score:
        design = None
        if shortlist is not None:
            size = shortlist.weight.size
            late = _fit_head_weights(
                [
                    Labelled(one.source, one.fold, one.features[:, :size], one.gold)
                    for one in others
                    if one.is_ranked
                ]
            )
            features = np.concatenate([sample.features for sample in others])
            design = Design.of(shortlist.refitted(late.weight, late.bias), features)

        def terms(sample: CalibrationSample) -> npt.NDArray[np.float32]:
            return design.terms(sample.features) if design else sample.features

        ranked = [
            Labelled(one.source, one.fold, terms(one), one.gold) for one in others if one.is_ranked
        ]
        by_fold = {
            fold: _fit_head_weights([one for one in ranked if one.fold != fold])
            for fold in {one.fold for one in others}
        }
        of_all = _fit_head_weights(ranked)
        fitted_to = {(one.source, one.question) for one in others}

        def score(sample: CalibrationSample) -> Floats:
            fit = by_fold[sample.fold] if (sample.source, sample.question) in fitted_to else of_all
            return fit.scores(terms(sample))

        return score

    return without


def predict(sample: CalibrationSample, scores: Floats, calibration: Calibration) -> Prediction:
    """Return what a calibration makes of a sample with the scores [S]."""
    answerable = calibration.answerable(scores, calibration.evidence(sample.features))
    likely = calibration.probabilities(scores, answerable)
    return Prediction(sample, scores, likely, answerable, calibration)


def _figures(source: str, predictions: Sequence[Prediction]) -> CalibrationFigures:
    rows = [row for row in predictions if row.sample.is_retrieved]
    likely = np.concatenate([row.probabilities for row in rows])
    gold = np.concatenate([row.sample.gold for row in rows])
    best = np.concatenate([np.arange(len(row.scores)) == row.scores.argmax() for row in rows])
    answerable = np.array([row.answerable for row in predictions])
    answered = np.array([row.sample.is_answered for row in predictions])
    twins = np.array([row.sample.kind.startswith("twin") for row in predictions])
    unanswerable = answerable < UNANSWERABLE_BELOW
    return CalibrationFigures(
        source=source,
        chunks=len(likely),
        relevant=float(gold.mean()),
        expected=float(likely.sum() / gold.sum()),
        error=calibration_error(likely, gold),
        error_of_best=calibration_error(likely[best], gold[best]),
        error_by_chance=error_by_chance(likely),
        error_of_best_by_chance=error_by_chance(likely[best]),
        skill=brier_skill(likely, gold),
        calls=len(predictions),
        auroc=auroc(answerable, answered),
        auroc_of_twins=auroc(answerable[twins], answered[twins]),
        lost=float(unanswerable[answered].mean()),
        recognised=float(unanswerable[~answered].mean()),
        error_of_calls=calibration_error(answerable, answered),
        reliability=reliability(likely, gold),
        reliability_of_best=reliability(likely[best], gold[best]),
        reliability_of_calls=reliability(answerable, answered),
    )


def _fit_head_weights(samples: Sequence[Labelled]) -> LinearFit:
    return fit_ranking(samples, name="head weights", ridge=RIDGE)
