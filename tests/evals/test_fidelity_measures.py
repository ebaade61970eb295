"""The measures of fidelity against numbers computed by hand and scipy, and the masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from at2_rag_evals.fidelity.masks import FIT_MASKS, KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.measures.best_sources import best_masks, best_values
from at2_rag_evals.fidelity.measures.linear_datamodeling import (
    Truth,
    centred,
    correlation,
    linear_datamodeling_scores,
    predicted_effects,
    shares,
)
from at2_rag_evals.fidelity.measures.tempered_shares import MULTIPLES, tempered_lds
from at2_rag_evals.fidelity.sources import SourcedItem, whole_chunks
from at2_rag_evals.fidelity.systems.ablations import sparse_fit
from tests.evals.labelled_items import make_item

MASKS = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)


def random_masks(seed: int, number: int, sources: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, number, sources)) < 0.5


def truth_of(effects: np.ndarray, masks: np.ndarray) -> dict[float, Truth]:
    """Return the truth where each source adds its effect."""
    return {
        rate: (of_rate, of_rate @ effects) for rate, of_rate in zip(KEEP_RATES, masks, strict=True)
    }


def item_of(chunks: int, name: str = "a") -> SourcedItem:
    return whole_chunks(make_item(name, "g" + "-" * (chunks - 1)))


def test_forms_of_scores_by_hand() -> None:
    assert predicted_effects([1, 2, 6], MASKS).tolist() == [3, 1, 8, 6]
    assert centred([1, 2, 6]).tolist() == [-2, -1, 3]
    assert centred([11, 12, 16]) == pytest.approx([-2, -1, 3])
    assert centred([1 / 7] * 7).tolist() == [0.0] * 7
    assert shares(np.log([1, 2, 5])) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert shares(np.log([1, 2, 5]) + 1000) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert shares([-1e6, 0.0]).tolist() == [0.0, 1.0]


def test_the_score_of_shares_takes_the_softmax_of_logits_only() -> None:
    parts = np.array([1, 2, 1, 20, 4, 4]) / 32
    truth = truth_of(parts, random_masks(4, 32, 6))
    actual = linear_datamodeling_scores(np.log(parts).tolist(), truth, logits=True)
    for kind in ("pearson", "spearman"):
        for name in (f"lds_shares_{kind}", *(f"lds_shares_{kind}_{r}" for r in KEEP_RATES)):
            assert actual[name] == pytest.approx(1.0)
            assert (actual[name.replace("_shares", "")] or 0) < 0.99
    actual = linear_datamodeling_scores(parts.tolist(), truth)
    assert actual["lds_shares_pearson"] == actual["lds_pearson"] == pytest.approx(1.0)


def test_correlations_are_those_of_scipy_and_by_hand() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert correlation(x, y, "pearson") == pytest.approx(4 / 5)
    assert correlation(x, np.exp(10 * y), "spearman") == pytest.approx(4 / 5)
    assert correlation(np.full(4, 0.1) * 3, y, "pearson") == 0.0
    assert correlation(x, np.full(4, 0.3), "spearman") is None
    assert correlation(x[:1], y[:1], "pearson") is None
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, size=(2, 32)).astype(float)
        assert correlation(x, y, "pearson") == pytest.approx(stats.pearsonr(x, y).statistic)
        assert correlation(x, y, "spearman") == pytest.approx(stats.spearmanr(x, y).statistic)


def test_scores_that_made_the_truth_have_a_perfect_score() -> None:
    scores = np.array([2.0, -1.0, 0.5, 3.0, 0.0, -2.0])
    truth = {
        rate: (masks, effects - 7.0)
        for rate, (masks, effects) in truth_of(scores, random_masks(1, 32, 6)).items()
    }
    actual = linear_datamodeling_scores(scores.tolist(), truth)
    assert [value for name, value in actual.items() if "centred" not in name] == pytest.approx(
        [1.0] * 12
    )
    constant = {**truth, 0.5: (truth[0.5][0], np.zeros(32))}
    actual = linear_datamodeling_scores(scores.tolist(), constant)
    assert actual["lds_pearson_0.5"] is None and actual["lds_pearson"] is None
    assert actual["lds_pearson_0.2"] == pytest.approx(1.0)
    noisy = {rate: (masks, effects + masks[:, 0]) for rate, (masks, effects) in truth.items()}
    actual = linear_datamodeling_scores(scores.tolist(), noisy)
    mean = ((actual["lds_pearson_0.2"] or 0) + (actual["lds_pearson_0.5"] or 0)) / 2
    assert actual["lds_pearson"] == pytest.approx(mean)


def test_a_constant_moves_the_score_but_not_the_centred_one() -> None:
    gold = np.eye(8)[0]
    masks = random_masks(2, 64, 8)
    truth = truth_of(gold, masks)
    plain = linear_datamodeling_scores(gold.tolist(), truth)
    moved = linear_datamodeling_scores((gold + 100).tolist(), truth)
    assert plain["lds_pearson"] == pytest.approx(1)
    assert (moved["lds_pearson"] or 0) < 0.6
    assert moved["lds_centred_pearson"] == pytest.approx(plain["lds_centred_pearson"])
    for value in (0.1, 1 / 7, 0.3, 0.5):
        actual = linear_datamodeling_scores([value] * 8, truth_of(np.ones(8), masks))
        assert actual["lds_centred_pearson"] == actual["lds_centred_spearman"] == 0.0


def test_the_best_sources_are_left_out_and_kept_alone() -> None:
    masks = {metric: mask.tolist() for metric, mask in best_masks((2, 0, 3, 1)).items()}
    assert masks == {
        "drop_1": [True, True, False, True],
        "drop_3": [False, True, False, False],
        "insertion_1": [False, False, True, False],
        "insertion_2": [True, False, True, False],
        "insertion_3": [True, False, True, True],
    }
    values = best_values(-0.5, {metric: -float(sum(mask)) for metric, mask in masks.items()})
    assert values == {
        **{"drop_1": 2.5, "drop_3": 0.5, "insertion_1": -1.0, "insertion_2": -2.0},
        **{"insertion_3": -3.0, "insertion_5": None},
    }


@pytest.mark.parametrize("chunks", [4, 6, 12, 13, 40])
def test_held_masks_and_fitted_masks_are_different(chunks: int) -> None:
    split, again, other = (
        MaskPlan(held=32, seed=seed).split(item_of(chunks)) for seed in (3, 3, 4)
    )
    half = (2**chunks - 2) // 2
    held = set()
    for rate in KEEP_RATES:
        masks = split.held[rate]
        assert masks.shape == (min(32, half), chunks)
        assert np.array_equal(masks, again.held[rate])
        assert masks.any(1).all() and not masks.all(1).any()
        different = {mask.tobytes() for mask in masks}
        assert len(different) == len(masks)
        held |= different
    assert split.fitted.shape == (min(FIT_MASKS, half), chunks)
    assert held.isdisjoint({mask.tobytes() for mask in split.fitted})
    assert not np.array_equal(other.fitted, split.fitted)


# Different masks keep a little more at a low rate: there are few that keep one chunk.
@pytest.mark.parametrize(("chunks", "tolerance"), [(12, 0.07), (40, 0.02)])
def test_held_masks_keep_about_the_share_of_their_rate(chunks: int, tolerance: float) -> None:
    splits = [MaskPlan().split(item_of(chunks, str(index))) for index in range(30)]
    for rate in KEEP_RATES:
        mean = np.mean([split.held[rate].mean() for split in splits])
        assert mean == pytest.approx(rate, abs=tolerance)


def test_the_sparse_fit_finds_the_sources_with_an_effect() -> None:
    masks = random_masks(5, 32, 10)[0]
    effects = masks @ np.array([0, 5, 0, 0, 0, 0, -3, 0, 0, 0]) - 4
    actual = np.array(sparse_fit(masks, effects, tokens=1))
    assert actual[1] == pytest.approx(5, abs=0.1) and actual[6] == pytest.approx(-3, abs=0.1)
    assert np.abs(np.delete(actual, [1, 6])).max() < 0.1
    assert np.array(sparse_fit(masks, 4 * effects, tokens=4)) == pytest.approx(4 * actual)
    masks[:, 2] = True
    assert sparse_fit(masks, effects, tokens=1)[2] == 0
    assert sparse_fit(masks, np.zeros(32), tokens=3) == (0.0,) * 10


@pytest.mark.parametrize("multiple", MULTIPLES[2:])
def test_tempered_shares_find_the_temperature_that_made_the_effects(multiple: float) -> None:
    rng = np.random.default_rng(7)
    items = [rng.normal(size=6) for _ in range(8)]
    spread = np.sqrt(np.mean([scores.var() for scores in items]))
    masks = random_masks(7, 32, 6)
    parts = [shares(scores / (multiple * spread)) for scores in items]
    truths = [truth_of(each, masks) for each in parts]
    sources = ["a", "b"] * 4
    logits = [scores.tolist() for scores in items]
    masses = [(3 * np.exp(scores)).tolist() for scores in items]
    assert tempered_lds(logits, truths, sources, "logit") == pytest.approx([1.0] * 8)
    assert tempered_lds(masses, truths, sources, "mass") == pytest.approx([1.0] * 8)
    by_rate = [
        np.mean([np.corrcoef(of_rate @ scores, of_rate @ part)[0, 1] for of_rate in masks])
        for scores, part in zip(items, parts, strict=True)
    ]
    assert tempered_lds(logits, truths, sources, "additive") == pytest.approx(by_rate)


def test_tempered_shares_are_chosen_by_the_mean_of_the_sources_means() -> None:
    scores = [0.1, 0.5, 1.0, 1.5, 2.0]
    masks = random_masks(3, 64, 5)
    cold, hot = (
        truth_of(shares(np.array(scores) / (multiple * np.std(scores))), masks)
        for multiple in (0.0625, 4.0)
    )
    # Three items of one source are best cold, one of each of two others hot.
    actual = tempered_lds([scores] * 5, [cold] * 3 + [hot] * 2, ["a", "a", "a", "b", "c"], "logit")
    assert actual[3] == actual[4] and (actual[3] or 0) > (actual[0] or 0)
