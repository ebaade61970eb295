"""Head weights and a calibration fitted without one source, and what they predict of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from at2_rag.readout.calibration import Calibration
from at2_rag.training.calibrating.fits import (
    Floats,
    Row,
    fit_ranking,
    logistic_fit,
    out_of_fold,
)
from at2_rag.training.calibrating.probabilities import (
    CalibrationSample,
    fit_calibration,
    out_of_fold_evidence,
)
from at2_rag.training.fitting.fit import LinearFit

RIDGE = 1e-2
"""Ridge penalty of the head weights."""

_LENGTH_RIDGE = 1e-3  # keeps slopes finite


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a fit that never saw a sample predicts of it.

    Attributes:
        sample: The sample.
        scores: [S], its chunks' scores.
        probabilities: [S], that each chunk is relevant.
        answerable: The probability that any chunk holds the answer.
        by_lengths: The logit of the same by the number of chunks and their lengths alone.
    """

    sample: CalibrationSample
    scores: Floats
    probabilities: Floats
    answerable: float
    by_lengths: float


@dataclass(frozen=True, slots=True, eq=False)
class LeftOutFit:
    """What is fitted to the samples of all sources but one.

    Attributes:
        head_weights: Head weights.
        calibration: Their calibration.
        by_lengths: Slopes and constant of a logistic function that predicts whether chunks hold the
            answer from their number and lengths alone.
    """

    head_weights: LinearFit
    calibration: Calibration
    by_lengths: tuple[float, ...]

    def predict(self, sample: CalibrationSample) -> Prediction:
        """Return what is predicted of a sample that wasn't fitted to."""
        evidence = float(self.calibration.evidence(sample.features).max())
        return self.prediction(sample, _scores(sample, self.head_weights), evidence)

    def prediction(self, sample: CalibrationSample, scores: Floats, evidence: float) -> Prediction:
        """Return the prediction that follows from scores [S] and the greatest evidence logit."""
        *slopes, constant = self.by_lengths
        return Prediction(
            sample,
            scores,
            self.calibration.probabilities(scores, evidence),
            self.calibration.answerable(scores, evidence),
            float(_length_terms(sample) @ np.array(slopes) + constant),
        )


def fit_without(
    source: str, samples: Sequence[CalibrationSample], shape: tuple[int, int, int]
) -> tuple[LeftOutFit, list[Prediction]]:
    """Return what is fitted to all other sources, and predictions of their samples.

    Each of those is predicted by head weights and a second readout fitted without its fold.

    Args:
        source: The source to leave out.
        samples: Samples of at least two sources.
        shape: [P, L, H] of the head weights.

    Raises:
        InputError: If the other sources can't be fitted to.
    """
    others = [sample for sample in samples if sample.source != source]
    fits = out_of_fold(others, fit_head_weights)
    scores = [_scores(sample, fit) for sample, fit in zip(others, fits, strict=True)]
    evidence = out_of_fold_evidence(others)
    calibration = fit_calibration(others, scores, evidence, shape)
    fit = LeftOutFit(fit_head_weights(others), calibration, _fit_lengths(others))
    return fit, list(map(fit.prediction, others, scores, evidence))


def fit_head_weights(samples: Sequence[CalibrationSample]) -> LinearFit:
    """Return head weights fitted to rank the gold chunks of samples that can be ranked.

    Twins are left out: in an unanswerable one nothing can be ranked, and weights that saw the other
    would tell the two apart by it.
    """
    rows = [
        Row(sample.source, sample.features, sample.gold) for sample in samples if sample.is_ranked
    ]
    return fit_ranking(rows, name="head weights", ridge=RIDGE)


def _scores(sample: CalibrationSample, fit: LinearFit) -> Floats:
    scores: Floats = sample.features @ fit.weight + fit.bias
    return scores


def _fit_lengths(samples: Sequence[CalibrationSample]) -> tuple[float, ...]:
    twins = [sample for sample in samples if sample.answerable is not None]
    return logistic_fit(
        np.array([_length_terms(sample) for sample in twins]),
        np.array([bool(sample.answerable) for sample in twins]),
        np.full(len(twins), 1 / len(twins)),
        _LENGTH_RIDGE,
    )


def _length_terms(sample: CalibrationSample) -> Floats:
    words = sample.words.astype(float)
    return np.array([len(words), words.sum(), words.max(), words.min(), words.std()])
