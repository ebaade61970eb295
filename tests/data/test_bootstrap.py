"""The bootstrap against intervals that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from at2_rag.data.bootstrap import Estimate, macro_sample, resample_means


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def test_interval_of_a_mean_is_the_analytic_one() -> None:
    values = generator().normal(3.0, 2.0, size=(400, 1))
    estimate = resample_means(values, range(400), rng=generator(1)).estimate(0)
    error = 1.96 * values.std() / math.sqrt(400)
    low, high = ends(estimate)
    assert estimate.mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(error, rel=0.03)
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)


def test_repeating_an_item_within_its_cluster_narrows_nothing() -> None:
    values = generator().normal(size=(60, 1))
    single = resample_means(values, range(60), rng=generator(1)).estimate(0)
    clusters = np.repeat(range(60), 5).tolist()
    repeated = resample_means(np.repeat(values, 5, axis=0), clusters, rng=generator(1)).estimate(0)
    assert ends(repeated) == pytest.approx(ends(single))
    assert (repeated.n, repeated.clusters) == (300, 60)


def test_clusters_of_unequal_size_weigh_by_their_items() -> None:
    values = np.array([[1.0], [1.0], [1.0], [0.0]])
    sample = resample_means(values, [7, 7, 7, 3], rng=generator())
    assert sample.means[0] == 0.75
    assert sample.draws is not None
    # Both drawn once, or one of them twice: 3 of 4, or all, or none.
    assert set(np.unique(sample.draws)) == {0.0, 0.75, 1.0}
    assert np.mean(sample.draws == 0.75) == pytest.approx(0.5, abs=0.02)


def test_a_difference_is_paired() -> None:
    base = generator().normal(size=200)
    sample = resample_means(np.stack([base + 0.1, base], axis=1), range(200), rng=generator(1))
    difference = sample.estimate(0, minus=1)
    assert (difference.mean, *ends(difference)) == pytest.approx((0.1, 0.1, 0.1))
    assert difference.excludes_zero and not sample.estimate(0, minus=0).excludes_zero


def test_macro_interval_is_that_of_a_mean_of_independent_means() -> None:
    rng = generator()
    strata = [rng.normal(index, 1 + index, size=(100 * (index + 1), 1)) for index in range(3)]
    samples = [
        resample_means(values, range(len(values)), rng=generator(index))
        for index, values in enumerate(strata)
    ]
    estimate = macro_sample(samples).estimate(0)
    variance = sum(values.var() / len(values) for values in strata) / 9
    low, high = ends(estimate)
    assert estimate.mean == pytest.approx(np.mean([values.mean() for values in strata]))
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=0.03)
    assert (estimate.n, estimate.clusters) == (600, 600)


def test_one_cluster_has_no_interval_and_neither_has_its_macro() -> None:
    one = resample_means(np.array([[1.0], [0.0]]), [0, 0], rng=generator())
    assert one.estimate(0) == Estimate(0.5, None, None, 2, 1)
    assert not one.estimate(0).excludes_zero
    many = resample_means(np.eye(4)[:, :1], range(4), rng=generator())
    assert macro_sample([one, many]).estimate(0) == Estimate(0.375, None, None, 6, 5)


def test_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = generator().normal(size=(50, 2))
    whole = resample_means(values, range(50), rng=generator(1), resamples=999)
    monkeypatch.setattr("at2_rag.data.bootstrap._BLOCK", 50 * 7)
    blocks = resample_means(values, range(50), rng=generator(1), resamples=999)
    assert whole.draws is not None and blocks.draws is not None
    assert np.allclose(whole.draws, blocks.draws)


@pytest.mark.parametrize("values", [np.empty((0, 1)), np.array([[np.nan]])])
def test_nothing_to_draw_from_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least one item, and finite values"):
        resample_means(values, range(len(values)), rng=generator())


@pytest.mark.parametrize("name", ["mean", "low", "high"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_estimate_that_is_no_number_is_refused(name: str, value: float) -> None:
    figures = {"mean": 0.5, "low": 0.4, "high": 0.6, name: value}
    with pytest.raises(ValueError, match=f"the {name} of an estimate over 20 items is {value}"):
        Estimate(**figures, n=20, clusters=20)


def test_nothing_is_concluded_from_fewer_than_ten_clusters() -> None:
    assert Estimate(0.5, 0.4, 0.6, 100, 10).interval == (0.4, 0.6)
    assert Estimate(0.5, 0.4, 0.6, 100, 9).interval is None
    assert Estimate(0.5, None, None, 100, 1).interval is None
