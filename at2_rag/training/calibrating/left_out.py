"""Head weights and a calibration fitted without one source, and what they predict of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from at2_rag.arrays import Floats
from at2_rag.training.calibrating.fits import (
    EVERY,
    Labelled,
    fit_logistic,
    fit_ranking,
    out_of_fold,
)
from at2_rag.training.calibrating.probabilities import (
    CalibrationSample,
    ScoredSample,
    fit_calibration,
    with_evidence,
)
from at2_rag.training.fitting.fit import LinearFit

RIDGE = 1e-2
"""Ridge penalty of the head weights."""

_LENGTH_RIDGE = 1e-3  # keeps slopes finite


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a fit that never saw a sample predicts of it."""

    sample: CalibrationSample
    scores: Floats  # [S]
    probabilities: Floats  # [S], that each chunk is relevant
    answerable: float  # probability that any chunk holds the answer
    by_lengths: float  # logit of the same by the number of chunks and their lengths alone


def fit_without(
    source: str, samples: Sequence[CalibrationSample], shape: tuple[int, int, int]
) -> tuple[Callable[[CalibrationSample], Prediction], list[Prediction]]:
    """Fit head weights, shaped [P, L, H], and a calibration to all sources but one.

    Returns:
        What predicts samples of the source, and predictions of the samples fitted to, each by head
        weights and a second readout fitted without its fold.

    Raises:
        InputError: If the other sources can't be fitted to.
    """
    others = [sample for sample in samples if sample.source != source]
    fits = out_of_fold(others, _fit_head_weights)
    scores = [_scores(sample, fit) for sample, fit in zip(others, fits, strict=True)]
    scored = with_evidence(others, scores)
    calibration = fit_calibration(scored, shape)
    head_weights, (*slopes, constant) = _fit_head_weights(others), _fit_lengths(others)

    def predict_scored(scored: ScoredSample) -> Prediction:
        sample, scores, evidence = scored
        return Prediction(
            sample,
            scores,
            calibration.probabilities(scores, evidence),
            calibration.answerable(scores, evidence),
            float(_length_terms(sample) @ np.array(slopes) + constant),
        )

    def predict(sample: CalibrationSample) -> Prediction:
        evidence = float(calibration.evidence(sample.features).max())
        return predict_scored(ScoredSample(sample, _scores(sample, head_weights), evidence))

    return predict, list(map(predict_scored, scored))


def _fit_head_weights(samples: Sequence[CalibrationSample]) -> LinearFit:
    """Fit head weights to rank gold chunks.

    Twins are left out: an unanswerable one has nothing to rank, and weights that saw only the
    answerable one would be biased towards it.
    """
    labelled = [
        Labelled(sample.source, sample.features, sample.gold)
        for sample in samples
        if sample.is_ranked
    ]
    return fit_ranking(labelled, name="head weights", ridge=RIDGE)


def _scores(sample: CalibrationSample, fit: LinearFit) -> Floats:
    scores: Floats = sample.features @ fit.weight + fit.bias
    return scores


def _fit_lengths(samples: Sequence[CalibrationSample]) -> tuple[float, ...]:
    labelled = [
        Labelled(EVERY, _length_terms(sample)[None], np.array([sample.answerable]))
        for sample in samples
        if sample.answerable is not None
    ]
    return fit_logistic(labelled, name="call's outcome", ridge=_LENGTH_RIDGE)


def _length_terms(sample: CalibrationSample) -> Floats:
    words = sample.words.astype(float)
    return np.array([len(words), words.sum(), words.max(), words.min(), words.std()])
