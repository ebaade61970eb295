"""The fit against planted weights and against an objective written down a second time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from at2_rag.errors import InputError
from at2_rag.training.fitting.fit import LinearFit, fit_few, fit_listwise
from at2_rag.training.fitting.losses import ListwiseData


def make_data(
    samples: int = 300,
    features: int = 20,
    *,
    seed: int = 0,
    planted: np.ndarray[Any, Any] | None = None,
) -> ListwiseData:
    """Samples of 3 to 12 chunks; gold is drawn by the softmax over the planted scores."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(3, 13, samples)
    matrix = (rng.normal(size=(counts.sum(), features)) * 2 + 1).astype(np.float32)
    labels = np.zeros(counts.sum(), dtype=bool)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for start, count in zip(starts, counts, strict=True):
        scores = matrix[start : start + count] @ planted if planted is not None else np.zeros(count)
        shares = np.maximum(np.exp(scores - scores.max()), 1e-6)
        size, shares = int(rng.integers(1, 3)), shares / shares.sum()
        labels[start + rng.choice(count, size=size, replace=False, p=shares)] = True
    return ListwiseData(matrix, labels, counts)


def penalised_loss(data: ListwiseData, ridge: float) -> Callable[[Any], float]:
    """The documented objective over standardised weights, in plain float64 arithmetic."""
    features = data.features.astype(np.float64)
    mean, deviation = features.mean(0), features.std(0)
    matrix = (features - mean) / np.where(deviation > 1e-6, deviation, np.inf)

    def objective(vector: Any) -> float:
        total, start = 0.0, 0
        for count in data.counts:
            rows = slice(start, start + int(count))
            scores, gold = matrix[rows] @ vector, data.labels[rows]
            log_total = math.log(sum(math.exp(score) for score in scores))
            total += float(np.mean([log_total - score for score in scores[gold]]))
            start += int(count)
        return total / len(data.counts) + ridge / 2 * float(vector @ vector)

    return objective


def standardised(fit: LinearFit, data: ListwiseData) -> np.ndarray[Any, Any]:
    return np.asarray(fit.weight * data.features.std(0, dtype=np.float64))


def scores_of(fit: LinearFit, data: ListwiseData) -> np.ndarray[Any, Any]:
    return np.asarray(data.features.astype(np.float64) @ fit.weight + fit.bias)


def test_another_minimiser_finds_no_better_weights() -> None:
    data = make_data(80, 4, planted=np.array([1.0, -0.5, 0.0, 0.3]))
    objective = penalised_loss(data, 1e-2)
    fit = fit_listwise(data, ridge=1e-2)
    other = minimize(objective, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-6})
    assert objective(standardised(fit, data)) <= other.fun + 1e-6
    assert standardised(fit, data) == pytest.approx(other.x, abs=5e-3)


def test_standardisation_is_folded_in() -> None:
    data = make_data(planted=np.linspace(-1, 1, 20))
    scale, shift = np.geomspace(0.01, 100, 20), np.linspace(-5, 5, 20)
    moved = dataclasses.replace(data, features=(data.features * scale + shift).astype(np.float32))
    plain, other = fit_listwise(data, ridge=1e-2), fit_listwise(moved, ridge=1e-2)
    assert scores_of(other, moved) == pytest.approx(scores_of(plain, data), abs=5e-3)
    assert other.weight * scale == pytest.approx(plain.weight, abs=1e-3)
    assert scores_of(plain, data).mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("value", "jitter"), [(7.25, 0.0), (1e4, 0.0), (0.0, 1e-8)])
def test_a_feature_that_never_varies_gets_no_weight(value: float, jitter: float) -> None:
    data = make_data(planted=np.linspace(-1, 1, 20))
    before = fit_listwise(data, ridge=1e-2)
    noise = np.where(data.labels, jitter, -jitter)[:, None]
    column = (value + noise).astype(np.float32)
    wider = dataclasses.replace(data, features=np.hstack([data.features, column]))
    fit = fit_listwise(wider, ridge=1e-2)
    assert fit.weight[-1] == 0.0
    assert fit.weight[:-1] == pytest.approx(before.weight, abs=1e-4)
    assert np.isfinite(fit.bias)


def test_scores_far_apart_do_not_overflow() -> None:
    data = make_data(60, 5, planted=np.ones(5))
    huge = dataclasses.replace(data, features=data.features * 1e4)
    separable = dataclasses.replace(
        data, features=np.where(data.labels, 1e3, -1e3)[:, None].astype(np.float32)
    )
    for difficult in (huge, separable):
        fit = fit_listwise(difficult, ridge=1e-6)
        assert np.isfinite(fit.weight).all()
    assert fit.weight[0] > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0] * 9, "1 of 5 samples have no label above 0; leave them out"),
        ([math.nan, 1.0], "labels hold NaN"),
        ([-1.0, 3.0], "values below 0"),
    ],
)
def test_labels_that_say_nothing_are_refused(values: list[float], message: str) -> None:
    data = make_data(5, 2)
    labels = data.labels.astype(float)
    second = slice(int(data.counts[0]), int(data.counts[:2].sum()))
    labels[second] = (values * 13)[: second.stop - second.start]
    with pytest.raises(InputError, match=message):
        fit_listwise(dataclasses.replace(data, labels=labels), ridge=1e-2)
    data.features[3, 1] = math.nan
    with pytest.raises(InputError, match="features hold NaN or infinity"):
        fit_listwise(data, ridge=1e-2)


def few(data: ListwiseData, group_of: Any, most: int) -> LinearFit:
    def fit(columns: Any) -> LinearFit:
        part = dataclasses.replace(data, features=data.features[:, columns])
        return fit_listwise(part, ridge=1e-3)

    return fit_few(fit, data.features, group_of, most)


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_at_most_so_many_groups_of_features_have_weights(most: int) -> None:
    group_of = np.arange(20) % 10
    planted = np.zeros(20)
    planted[[3, 13, 8]] = 1.0, -0.5, 0.7  # of the groups 3 and 8
    data = make_data(planted=planted)
    data.features[:, 3] *= 0.01  # small numbers with large weights
    fit = few(data, group_of, most)
    groups = set(group_of[fit.weight != 0].tolist())
    assert len(groups) == most and fit.weight.shape == (20,)
    assert groups <= {3, 8} or groups >= {3, 8}
    columns = np.flatnonzero(np.isin(group_of, list(groups)))
    alone = fit_listwise(dataclasses.replace(data, features=data.features[:, columns]), ridge=1e-3)
    assert fit.weight[columns] == pytest.approx(alone.weight, abs=1e-6)
    assert fit.bias == pytest.approx(alone.bias)


def test_few_groups_are_fitted_as_without_a_limit() -> None:
    data = make_data(60, 6, planted=np.linspace(-1, 1, 6))
    plain = fit_listwise(data, ridge=1e-3)
    for most in (3, 100):
        fit = few(data, np.arange(6) // 2, most)
        # Within the minimiser's tolerance: columns lie otherwise in memory, and round otherwise.
        assert fit.weight == pytest.approx(plain.weight, abs=1e-4)
        assert fit.bias == pytest.approx(plain.bias, abs=1e-4)
