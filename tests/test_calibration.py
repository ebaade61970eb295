"""Probabilities from scores."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from at2_rag.calibration import Calibration
from at2_rag.errors import HeadWeightsError

CALIBRATION = Calibration(chunk=(0.5, 1.5, -0.25), call=(0.8, -0.3, 0.1))


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_probabilities_by_hand() -> None:
    scores = [2.0, -1.0, 0.5]
    total = math.log(sum(map(math.exp, scores)))
    expected = [logistic(0.5 * own + 1.5 * (own - total) - 0.25) for own in scores]
    assert CALIBRATION.probabilities(scores) == pytest.approx(expected, rel=1e-12)
    expected_call = logistic(0.8 * 2.0 - 0.3 * (2.0 - total) + 0.1)
    assert CALIBRATION.supported(scores) == pytest.approx(expected_call, rel=1e-12)


def test_no_chunks_support_nothing() -> None:
    assert CALIBRATION.supported([]) == 0.0
    assert CALIBRATION.probabilities([]).shape == (0,)


@pytest.mark.parametrize("seed", range(20))
def test_a_higher_score_is_never_less_likely_and_order_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    calibration = Calibration(
        chunk=(*rng.exponential(size=2), float(rng.normal())), call=tuple(rng.normal(size=3))
    )
    scores = rng.normal(0, 5, int(rng.integers(1, 30)))
    found = calibration.probabilities(scores)
    assert np.all(np.diff(found[np.argsort(scores)]) >= 0)
    assert ((found >= 0) & (found <= 1)).all()
    order = rng.permutation(len(scores))
    assert calibration.probabilities(scores[order]) == pytest.approx(found[order], abs=1e-12)
    assert calibration.supported(scores[order]) == pytest.approx(calibration.supported(scores))


def test_extreme_scores_give_no_warning_and_finite_numbers() -> None:
    for scores in ([1e6, -1e6], [-1e9], [0.0] * 5):
        assert np.isfinite(CALIBRATION.probabilities(scores)).all()
        assert math.isfinite(CALIBRATION.supported(scores))


def test_it_survives_json() -> None:
    text = json.dumps(CALIBRATION.to_dict())
    assert Calibration.from_dict(json.loads(text)) == CALIBRATION


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"chunk": (1.0, 1.0)}, "numbers for a chunk are .*; expected 3 finite ones"),
        ({"call": (1.0, math.nan, 0.0)}, "numbers for a call are .*; expected 3 finite ones"),
        ({"chunk": (1.0, -0.1, 0.0)}, "slopes for a chunk are .* none may be below 0"),
    ],
)
def test_unusable_numbers_are_refused(numbers: dict[str, Any], told: str) -> None:
    with pytest.raises(HeadWeightsError, match=told):
        Calibration(**{"chunk": (1.0, 1.0, 0.0), "call": (1.0, 1.0, 0.0), **numbers})


@pytest.mark.parametrize("values", [None, [], {}, {"chunk": {}}, {"chunk": 3, "call": "x"}, "text"])
def test_other_forms_are_refused_with_the_fix(values: Any) -> None:
    with pytest.raises(HeadWeightsError, match="can't be read .* `at2-rag calibrate`"):
        Calibration.from_dict(values)
