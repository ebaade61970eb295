"""The Pearson fit against planted weights, correlations by SciPy, and differences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import pearsonr

from at2_rag.errors import InputError
from at2_rag.training.fitting.fit import fit_listwise, fit_pearson
from at2_rag.training.fitting.losses import (
    AblationData,
    ListwiseData,
    ListwiseLoss,
    PearsonLoss,
    Standardised,
)

Array = np.ndarray[Any, Any]


def make_ablations(planted: Array, *, samples: int = 80, noise: float = 0.0) -> AblationData:
    """Effects are the kept chunks' planted scores, on another scale and level in each sample."""
    rng = np.random.default_rng(0)
    counts = rng.integers(2, 9, samples)
    features = (rng.normal(size=(counts.sum(), len(planted))) * 3 + 1).astype(np.float32)
    masks, effects, start = [], [], 0
    for count in counts:
        drawn = rng.random((int(rng.integers(6, 20)), count)) < 0.5
        drawn[0] = ~drawn[1]
        score = drawn @ (features[start : start + count] @ planted)
        effects.append(
            score * rng.uniform(0.1, 9) + rng.normal() + noise * rng.normal(size=len(drawn))
        )
        masks.append(drawn)
        start += int(count)
    return AblationData(features, counts, masks, effects)


def cosine(first: Array, second: Array) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def predictions(data: AblationData, scores: Array) -> list[Array]:
    ends = np.cumsum(data.counts)
    pairs = zip(data.masks, ends, strict=True)
    return [masks @ scores[end - masks.shape[1] : end] for masks, end in pairs]


def test_the_loss_is_the_mean_of_scipys_correlations() -> None:
    data = make_ablations(np.arange(6) - 2.5, noise=30)
    matrix, vector = Standardised(data.features).matrix, np.random.default_rng(0).normal(size=7)
    predicted = predictions(data, matrix.numpy() @ vector[:-1] + vector[-1])
    pairs = zip(predicted, data.effects, strict=True)
    expected = [pearsonr(one, effects).statistic for one, effects in pairs]
    loss, _ = PearsonLoss(data, matrix)(vector)
    assert -loss == pytest.approx(np.mean(expected), abs=1e-5)


def test_predictions_vary_by_one_over_masks() -> None:
    data = make_ablations(np.arange(6) - 2.5, noise=30)
    fit = fit_pearson(data, ridge=1e-2)
    variances = list(map(np.var, predictions(data, data.features @ fit.weight + fit.bias)))
    assert np.mean(variances) == pytest.approx(1, rel=1e-3)


def test_effects_that_do_not_vary_say_nothing() -> None:
    data = make_ablations(np.array([1.0, 2.0]))
    flat = [*data.effects[:-1], np.full_like(data.effects[-1], -3.25)]
    with_flat = dataclasses.replace(data, effects=flat)
    without = data.take(np.arange(len(data.counts)) < len(data.counts) - 1)
    one, other = fit_pearson(with_flat, ridge=1e-3), fit_pearson(without, ridge=1e-3)
    assert cosine(one.weight, other.weight) > 0.9999
    constant = dataclasses.replace(data, effects=[np.zeros_like(e) for e in data.effects])
    with pytest.raises(InputError, match=r"none of 80 samples.*two different masks"):
        fit_pearson(constant, ridge=1e-3)
    alike = [np.ones_like(masks) for masks in data.masks]
    with pytest.raises(InputError, match="at least two different masks"):
        fit_pearson(dataclasses.replace(data, masks=alike), ridge=1e-3)
    data.effects[2][1] = np.nan
    with pytest.raises(InputError, match="effects of sample 2 hold NaN or infinity"):
        fit_pearson(data, ridge=1e-3)


def labelled(data: AblationData, planted: Array) -> ListwiseData:
    scores, ends = data.features @ planted, np.cumsum(data.counts)
    labels = np.zeros(len(scores), dtype=bool)
    for count, end in zip(data.counts, ends, strict=True):
        labels[end - count + np.argmax(scores[end - count : end])] = True
    return ListwiseData(data.features, labels, data.counts)


@pytest.mark.parametrize("loss", ["listwise", "pearson"])
def test_gradients_agree_with_differences(loss: str) -> None:
    planted = np.array([1.0, -2.0, 0.5, 0.0])
    data = make_ablations(planted, samples=12, noise=3)
    matrix = Standardised(data.features).matrix
    term = (
        PearsonLoss(data, matrix)
        if loss == "pearson"
        else ListwiseLoss(labelled(data, planted), matrix)
    )
    rng = np.random.default_rng(1)
    for _ in range(5):
        point = rng.normal(size=5 if loss == "pearson" else 4)
        error = check_grad(lambda v: term(v)[0], lambda v: term(v)[1], point, epsilon=1e-3)
        assert error < 2e-3 * max(1.0, float(np.linalg.norm(term(point)[1])))


def test_shares_of_labels_are_what_the_softmax_is_drawn_to() -> None:
    """One sample, one feature a chunk: the fitted softmax becomes the given distribution."""
    target = np.array([0.5, 0.3, 0.2])
    features = np.tile(np.eye(3, dtype=np.float32), (4, 1))
    data = ListwiseData(features, np.tile(target * 7, 4), np.full(4, 3))
    fit = fit_listwise(data, ridge=1e-9)
    scores = np.eye(3) @ fit.weight
    assert np.exp(scores) / np.exp(scores).sum() == pytest.approx(target, abs=1e-3)
