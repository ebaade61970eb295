"""Head weights and a calibration fitted without one source, and what they predict of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from at2_rag.training.calibrating.fits import (
    EVERY,
    Floats,
    Row,
    fit_link,
    fit_ranking,
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


def fit_without(
    source: str, samples: Sequence[CalibrationSample], shape: tuple[int, int, int]
) -> tuple[Callable[[CalibrationSample], Prediction], list[Prediction]]:
    """Fit head weights and a calibration to all sources but one.

    Args:
        source: The source to leave out.
        samples: Samples of at least two sources.
        shape: [P, L, H] of the head weights.

    Returns:
        What predicts samples of the source, and predictions of the samples fitted to, each by head
        weights and a second readout fitted without its fold.

    Raises:
        InputError: If the other sources can't be fitted to.
    """
    others = [sample for sample in samples if sample.source != source]
    fits = out_of_fold(others, fit_head_weights)
    scores = [_scores(sample, fit) for sample, fit in zip(others, fits, strict=True)]
    evidence = out_of_fold_evidence(others)
    calibration = fit_calibration(others, scores, evidence, shape)
    head_weights, (*slopes, constant) = fit_head_weights(others), _fit_lengths(others)

    def prediction(sample: CalibrationSample, scores: Floats, evidence: float) -> Prediction:
        return Prediction(
            sample,
            scores,
            calibration.probabilities(scores, evidence),
            calibration.answerable(scores, evidence),
            float(_length_terms(sample) @ np.array(slopes) + constant),
        )

    def predict(sample: CalibrationSample) -> Prediction:
        best = float(calibration.evidence(sample.features).max())
        return prediction(sample, _scores(sample, head_weights), best)

    return predict, list(map(prediction, others, scores, evidence))


def fit_head_weights(samples: Sequence[CalibrationSample]) -> LinearFit:
    """Return head weights fitted to rank the gold chunks of samples that can be ranked.

    Twins are left out: an unanswerable one has nothing to rank, and weights that saw only the
    answerable one would be biased towards it.
    """
    rows = [
        Row(sample.source, sample.features, sample.gold) for sample in samples if sample.is_ranked
    ]
    return fit_ranking(rows, name="head weights", ridge=RIDGE)


def _scores(sample: CalibrationSample, fit: LinearFit) -> Floats:
    scores: Floats = sample.features @ fit.weight + fit.bias
    return scores


def _fit_lengths(samples: Sequence[CalibrationSample]) -> tuple[float, ...]:
    rows = [
        Row(EVERY, _length_terms(sample)[None], np.array([sample.answerable]))
        for sample in samples
        if sample.answerable is not None
    ]
    return fit_link(rows, name="call's outcome", ridge=_LENGTH_RIDGE)


def _length_terms(sample: CalibrationSample) -> Floats:
    words = sample.words.astype(float)
    return np.array([len(words), words.sum(), words.max(), words.min(), words.std()])
