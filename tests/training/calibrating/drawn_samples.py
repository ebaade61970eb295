"""Samples drawn from known probabilities, to see whether fits find them again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.readout.calibration import Calibration
from at2_rag.training.calibrating.probabilities import CalibrationSample

SHAPE = (1, 2, 2)
TRUE = Calibration(
    np.array([[[0.0, 0.0], [1.2, -0.8]]], np.float32), -1.0, (0.3, 0.8, 0.5, 0.4), (0.9, 0.5, 0.6)
)


def readout(features: npt.NDArray[np.float32]) -> Floats:
    """Return scores that head weights would give."""
    scores: Floats = features.astype(float) @ np.array([1.5, -0.5, 0.0, 0.0])
    return scores


def drawn(count: int, seed: int, source: str = "a") -> list[CalibrationSample]:
    """Draw samples whose outcomes have the probabilities of `TRUE`; every one has all of them."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        features = rng.normal(0, 1.5, (int(rng.integers(2, 12)), 4)).astype(np.float32)
        logits = TRUE.evidence(features)
        best, scores = float(logits.max()), readout(features)
        samples.append(
            CalibrationSample(
                source,
                number % 3,
                features,
                gold=rng.random(len(features)) < 1 / (1 + np.exp(-logits)),
                words=np.full(len(features), 40),
                relevant=rng.random(len(features)) < TRUE.probabilities(scores, best),
                answerable=bool(rng.random() < TRUE.answerable(scores, best)),
            )
        )
    return samples
