"""How good probabilities are on each source in turn, by what was fitted without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.options import UNANSWERABLE_BELOW
from at2_rag.readout.shortlist import Design, Shortlist
from at2_rag.training.calibrating.fits import EVERY, Labelled, fit_ranking, out_of_fold
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


def study_left_out_sources(
    samples: Sequence[CalibrationSample],
    shape: tuple[int, int, int],
    shortlist: Shortlist | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CalibrationFigures]:
    """Judge each source by head weights, shaped [P, L, H], and a calibration fitted to all others.

    Sources without unanswerable lists are fitted to but not judged. Figures of all sources judged
    come last. There are none with a single source. `shortlist` is what the samples were read with.
    """
    sources = sorted({sample.source for sample in samples})
    figures: list[CalibrationFigures] = []
    every: list[Prediction] = []
    for done, source in enumerate(sources if len(sources) > 1 else []):
        progress(done, len(sources))
        judged = [sample for sample in samples if sample.source == source]
        if len({sample.is_answered for sample in judged}) == 2:
            predictions = list(map(fit_without(source, samples, shape, shortlist), judged))
            figures.append(_figures(source, predictions))
            every += predictions
    progress(len(sources), len(sources))
    return [*figures, *([_figures(EVERY, every)] if len(figures) > 1 else [])]


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


def fit_without(
    source: str,
    samples: Sequence[CalibrationSample],
    shape: tuple[int, int, int],
    shortlist: Shortlist | None = None,
) -> Callable[[CalibrationSample], Prediction]:
    """Return what predicts samples of a source, fitted to all sources but this one."""
    others = [sample for sample in samples if sample.source != source]
    design = shortlist and Design.of(
        shortlist, np.concatenate([sample.features for sample in others])
    )

    def terms(sample: CalibrationSample) -> npt.NDArray[np.float32]:
        return design.terms(sample.features) if design else sample.features

    # Only lists as retrieved are ranked: of the others many have nothing to rank.
    ranked = [
        Labelled(one.source, one.fold, terms(one), one.gold & one.is_ranked) for one in others
    ]
    fits = out_of_fold(ranked, _fit_head_weights)
    scores = [fit.scores(one.terms) for one, fit in zip(ranked, fits, strict=True)]
    calibration = fit_calibration(with_evidence(others, scores), shape)
    head_weights = _fit_head_weights(ranked)

    def predict(sample: CalibrationSample) -> Prediction:
        evidence = calibration.evidence(sample.features)
        scores = head_weights.scores(terms(sample))
        return Prediction(
            sample,
            scores,
            calibration.probabilities(scores, evidence),
            calibration.answerable(scores, evidence),
        )

    return predict


def _fit_head_weights(samples: Sequence[Labelled]) -> LinearFit:
    return fit_ranking(samples, name="head weights", ridge=RIDGE)
