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
CHUNK, CALL = (0.5, 1.5, 0.2, -0.25), (0.8, -0.3, 0.1)


def make(**changes: Any) -> Calibration:
    return Calibration(**{"evidence_weight": WEIGHT, "evidence_bias": 0.5, **LEFT, **changes})


LEFT: dict[str, Any] = {"chunk": CHUNK, "call": CALL}


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_probabilities_by_hand() -> None:
    scores = [2.0, -1.0, 0.5]
    total = math.log(sum(map(math.exp, scores)))
    expected = [logistic(0.5 * own + 1.5 * (own - total) + 0.2 * 3 - 0.25) for own in scores]
    assert make().probabilities(scores, 3.0) == pytest.approx(expected, rel=1e-12)
    expected_call = logistic(0.8 * 3 - 0.3 * (2.0 - total) + 0.1)
    assert make().answerable(scores, 3.0) == pytest.approx(expected_call, rel=1e-12)
    features = [[1.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]]
    assert make().evidence(features) == pytest.approx([5.5, 2.5])


def test_no_chunks_have_no_probabilities() -> None:
    assert make().probabilities([], 0.0).shape == (0,)


@pytest.mark.parametrize("seed", range(20))
def test_a_higher_score_is_never_less_likely_and_order_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    calibration = make(
        chunk=(*rng.exponential(size=2), *rng.normal(size=2)), call=tuple(rng.normal(size=3))
    )
    scores, best = rng.normal(0, 5, int(rng.integers(1, 30))), float(rng.normal())
    found = calibration.probabilities(scores, best)
    assert np.all(np.diff(found[np.argsort(scores)]) >= 0)
    assert ((found >= 0) & (found <= 1)).all()
    order = rng.permutation(len(scores))
    assert calibration.probabilities(scores[order], best) == pytest.approx(found[order], abs=1e-12)
    expected = calibration.answerable(scores, best)
    assert calibration.answerable(scores[order], best) == pytest.approx(expected)


def test_extreme_scores_give_no_warning_and_finite_numbers() -> None:
    for scores in ([1e6, -1e6], [-1e9], [0.0] * 5):
        for best in (-1e6, 1e6):
            assert np.isfinite(make().probabilities(scores, best)).all()
            assert math.isfinite(make().answerable(scores, best))


def test_its_numbers_survive_json() -> None:
    text = json.dumps(make().numbers())
    again = Calibration.from_parts(json.loads(text), WEIGHT, 0.5)
    assert (again.chunk, again.call) == (CHUNK, CALL)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"chunk": (1.0, 1.0)}, "numbers for a chunk are .*; expected 4 finite ones"),
        ({"call": (1.0, math.nan, 0.0)}, "numbers for a call are .*; expected 3 finite ones"),
        ({"chunk": (1.0, -0.1, 0.0, 0.0)}, "slopes for score and share are .* none may be below"),
        ({"evidence_bias": math.inf}, "evidence weights hold NaN or infinity"),
        ({"evidence_weight": WEIGHT * np.nan}, "evidence weights hold NaN or infinity"),
    ],
)
def test_unusable_numbers_are_refused(numbers: dict[str, Any], told: str) -> None:
    with pytest.raises(HeadWeightsError, match=told):
        make(**numbers)


@pytest.mark.parametrize("values", [None, [], {}, {"chunk": {}}, {"chunk": 3, "call": "x"}, "text"])
def test_other_forms_are_refused_with_the_fix(values: Any) -> None:
    with pytest.raises(HeadWeightsError, match="can't be read .* `at2-rag calibrate`"):
        Calibration.from_parts(values, WEIGHT, 0.5)


def test_the_outcome_is_kept_and_checked() -> None:
    assert make().outcome == "evidence"
    for outcome in ("evidence", "removal"):
        numbers = make(outcome=outcome).numbers()
        assert numbers["outcome"] == outcome
        assert Calibration.from_parts(numbers, WEIGHT, 0.5).outcome == outcome
    with pytest.raises(HeadWeightsError, match="the calibration's outcome is 'luck'"):
        make(outcome="luck")
