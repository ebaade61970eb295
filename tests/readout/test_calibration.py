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
CHUNK, CALL = (0.5, 1.5, 0.2, -0.7, -0.25), (-0.3, 0.8, 0.4, 0.1)


def make(**changes: Any) -> Calibration:
    values = {"evidence_weight": WEIGHT, "evidence_bias": 0.5, "chunk": CHUNK, "call": CALL}
    return Calibration(**{**values, **changes})


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_probabilities_by_hand() -> None:
    scores = [2.0, -1.0, 0.5]
    total = math.log(sum(map(math.exp, scores)))
    of_call = 0.2 * 3 - 0.7 * math.log(3) - 0.25
    expected = [logistic(0.5 * one + 1.5 * (one - total) + of_call) for one in scores]
    assert make().probabilities(scores, 3.0) == pytest.approx(expected, rel=1e-12)
    expected_call = logistic(-0.3 * (2.0 - total) + 0.8 * 3 + 0.4 * math.log(3) + 0.1)
    assert make().answerable(scores, 3.0) == pytest.approx(expected_call, rel=1e-12)
    features = [[1.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]]
    assert make().evidence(features) == pytest.approx(math.log(math.exp(5.5) + math.exp(2.5)))
    assert make().evidence([*features, [math.nan] * 6]) == make().evidence(features)
    assert make().evidence([*features, features[1]], [0, 1, 1]) == make().evidence(features)
    assert make().probabilities([], 0.0).shape == (0,)


@pytest.mark.parametrize("seed", range(20))
def test_a_higher_score_is_never_less_likely_whatever_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    calibration = make(
        chunk=(*rng.exponential(size=2), *rng.normal(size=3)), call=tuple(rng.normal(size=4))
    )
    scores, best = rng.normal(0, 5, int(rng.integers(1, 30))), float(rng.normal())
    likely = calibration.probabilities(scores, best)
    assert np.all(np.diff(likely[np.argsort(scores)]) >= 0)
    assert ((likely >= 0) & (likely <= 1)).all()
    order = rng.permutation(len(scores))
    assert calibration.probabilities(scores[order], best) == pytest.approx(likely[order], abs=1e-12)
    expected = calibration.answerable(scores, best)
    assert calibration.answerable(scores[order], best) == pytest.approx(expected)


def test_extreme_scores_give_no_warning_and_finite_numbers() -> None:
    for scores in ([1e6, -1e6], [-1e9], [0.0] * 5):
        for best in (-1e6, 1e6):
            assert np.isfinite(make().probabilities(scores, best)).all()
            assert math.isfinite(make().answerable(scores, best))


def test_its_numbers_survive_json() -> None:
    numbers = json.loads(json.dumps(make().numbers()))
    again = Calibration.from_numbers(numbers, WEIGHT, 0.5)
    assert (again.chunk, again.call) == (CHUNK, CALL)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"chunk": (1.0, 1.0)}, "numbers for a chunk are .*; expected 5 finite ones"),
        ({"call": (1.0, math.nan, 0.0, 0.0)}, "numbers for a call are .*; expected 4 finite ones"),
        (
            {"chunk": (1.0, -0.1, 0.0, 0.0, 0.0)},
            "number of log_share for a chunk is -0.1; .* below 0",
        ),
        ({"evidence_bias": math.inf}, "evidence weights hold NaN or infinity"),
        ({"evidence_weight": WEIGHT * np.nan}, "evidence weights hold NaN or infinity"),
    ],
)
def test_unusable_numbers_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadWeightsError, match=message):
        make(**numbers)
