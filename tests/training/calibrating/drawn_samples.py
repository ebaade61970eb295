"""Samples drawn from known probabilities, to see whether fits find them again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.readout.calibration import Calibration
from at2_rag.training.calibrating.probabilities import CalibrationSample

SHAPE = (1, 2, 2)
# A chunk's logit is its score less 1, so that gold labels follow scores and evidence alike. Nothing
# here is said of calls: whether any of a call's chunks is gold follows from theirs.
TRUE = Calibration(
    np.array([[[0.0, 0.0], [1.2, -0.8]]], np.float32),
    -1.0,
    (1.0, 0.0, 0.0, -1.0),
    (0.0, 0.0, 0.0, 0.0, 0.0),
)


def readout(features: npt.NDArray[np.float32]) -> Floats:
    """Return scores that head weights would give."""
    scores: Floats = features.astype(float) @ TRUE.evidence_weight.ravel()
    return scores


def drawn(count: int, seed: int, source: str = "a") -> list[CalibrationSample]:
    """Draw samples with the probabilities of `TRUE`; every other one is of another kind."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        features = rng.normal(0, 1.5, (int(rng.integers(2, 12)), 4)).astype(np.float32)
        likely = TRUE.probabilities(readout(features), 1.0)
        samples.append(
            CalibrationSample(
                source,
                number % 3,
                features,
                gold=rng.random(len(features)) < likely,
                kind="twin with gold" if number % 2 else "retrieved",
            )
        )
    return samples
