"""Probabilities from scores."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from at2_rag.errors import HeadWeightsError
from at2_rag.readout.calibration import Calibration

WEIGHT = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
CHUNK, CALL = (0.5, 1.5, -0.7, -0.25), (0.6, -0.3, 0.8, 0.4, 0.1)


def make(**changes: Any) -> Calibration:
    values = {"evidence_weight": WEIGHT, "evidence_bias": 0.5, "chunk": CHUNK, "call": CALL}
    return Calibration(**{**values, **changes})


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_probabilities_by_hand() -> None:
    scores = [2.0, -1.0, 0.5]
    total = math.log(sum(map(math.exp, scores)))
    of_call = -0.7 * math.log(3) - 0.25
    expected = [logistic(0.5 * one + 1.5 * (one - total) + of_call) for one in scores]
    assert make().probabilities(scores, 1.0) == pytest.approx(expected, rel=1e-12)
    capped = [min(expected[2] + 0.01, one) for one in expected]
    assert make().probabilities(scores, expected[2] + 0.01) == pytest.approx(capped, rel=1e-12)
    logit = 0.6 * 2.0 - 0.3 * (2.0 - total) + 0.8 * 3 + 0.4 * math.log(3) + 0.1
    assert make().answerable(scores, 3.0) == pytest.approx(logistic(logit), rel=1e-12)
    features = [[1.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]]
    assert make().evidence(features) == pytest.approx(math.log(math.exp(5.5) + math.exp(2.5)))
    assert make().evidence([*features, [math.nan] * 6]) == make().evidence(features)
    assert make().evidence([*features, features[1]], [0, 1, 1]) == make().evidence(features)
    assert make().probabilities([], 0.0).shape == (0,)


@pytest.mark.parametrize("seed", range(20))
def test_a_higher_score_is_never_less_likely_whatever_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    calibration = make(
        chunk=(*rng.exponential(size=2), *rng.normal(size=2)), call=tuple(rng.normal(size=5))
    )
    scores, evidence = rng.normal(0, 5, int(rng.integers(1, 30))), float(rng.normal())
    answerable = calibration.answerable(scores, evidence)
    likely = calibration.probabilities(scores, answerable)
    assert np.all(np.diff(likely[np.argsort(scores)]) >= 0)
    assert ((likely >= 0) & (likely <= answerable)).all() and answerable <= 1
    order = rng.permutation(len(scores))
    again = calibration.probabilities(scores[order], answerable)
    assert again == pytest.approx(likely[order], abs=1e-12)
    assert calibration.answerable(scores[order], evidence) == pytest.approx(answerable)


def test_extreme_scores_give_no_warning_and_finite_numbers() -> None:
    for scores in ([1e6, -1e6], [-1e9], [0.0] * 5):
        for evidence in (-1e6, 1e6):
            answerable = make().answerable(scores, evidence)
            assert np.isfinite([answerable, *make().probabilities(scores, answerable)]).all()


def test_its_numbers_survive_json() -> None:
    numbers = json.loads(json.dumps(make().numbers()))
    again = Calibration.from_numbers(numbers, WEIGHT, 0.5)
    assert (again.chunk, again.call) == (CHUNK, CALL)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"chunk": (1.0, 1.0)}, "numbers for a chunk are .*; expected 4 finite ones"),
        (
            {"call": (1.0, math.nan, 0.0, 0.0, 0.0)},
            "numbers for a call are .*; expected 5 finite ones",
        ),
        (
            {"chunk": (1.0, -0.1, 0.0, 0.0)},
            "number of log_share for a chunk is -0.1; .* below 0",
        ),
        ({"evidence_bias": math.inf}, "evidence weights hold NaN or infinity"),
        ({"evidence_weight": WEIGHT * np.nan}, "evidence weights hold NaN or infinity"),
    ],
)
def test_unusable_numbers_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadWeightsError, match=message):
        make(**numbers)
