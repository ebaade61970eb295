"""The measures of fidelity against numbers worked out by hand and scipy, and the masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from at2_rag_evals.fidelity.masks import FIT_MASKS, KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.measures.best_sources import best_masks, best_values
from at2_rag_evals.fidelity.measures.linear_datamodeling import (
    Floats,
    Truth,
    centred,
    correlation,
    linear_datamodeling_scores,
    predicted_effects,
    shares,
)
from at2_rag_evals.fidelity.measures.tempered_shares import MULTIPLES, Scale, tempered_lds
from at2_rag_evals.fidelity.sources import whole_chunks
from at2_rag_evals.fidelity.systems.ablations import sparse_fit
from tests.evals.labelled_items import make_item

MASKS = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)


def test_predicted_effects_are_sums_of_kept_scores() -> None:
    assert predicted_effects([1, 2, 6], MASKS).tolist() == [3, 1, 8, 6]
    assert centred([1, 2, 6]).tolist() == [-2, -1, 3]
    assert predicted_effects(centred([1, 2, 6]), MASKS).tolist() == [-3, -2, 2, 3]
    assert centred([11, 12, 16]) == pytest.approx([-2, -1, 3])


def test_shares_are_the_softmax_by_hand() -> None:
    assert shares(np.log([1, 2, 5])) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert shares(np.log([1, 2, 5]) + 1000) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert shares([-1e6, 0.0]).tolist() == [0.0, 1.0]


def test_the_score_of_shares_takes_the_softmax_of_logits_only() -> None:
    masks = np.random.default_rng(4).random((2, 32, 6)) < 0.5
    parts = np.array([1, 2, 1, 20, 4, 4]) / 32
    truth = {rate: (own, own @ parts) for rate, own in zip(KEEP_RATES, masks, strict=True)}
    actual = linear_datamodeling_scores(np.log(parts).tolist(), truth, logits=True)
    for kind in ("pearson", "spearman"):
        for name in (f"lds_shares_{kind}", *(f"lds_shares_{kind}_{r}" for r in KEEP_RATES)):
            assert actual[name] == pytest.approx(1.0)
            assert (actual[name.replace("_shares", "")] or 0) < 0.99
    actual = linear_datamodeling_scores(parts.tolist(), truth)
    assert actual["lds_shares_pearson"] == actual["lds_pearson"] == pytest.approx(1.0)


def test_correlations_by_hand() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert correlation(x, y, "pearson") == pytest.approx(4 / 5)
    assert correlation(x, np.exp(10 * y), "spearman") == pytest.approx(4 / 5)
    assert correlation(x, -x, "pearson") == pytest.approx(-1)
    assert correlation(np.full(4, 0.1) * 3, y, "pearson") == 0.0
    assert correlation(x, np.full(4, 0.3), "spearman") is None
    assert correlation(x[:1], y[:1], "pearson") is None


def test_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, size=(2, 32)).astype(float)
        assert correlation(x, y, "pearson") == pytest.approx(stats.pearsonr(x, y).statistic)
        assert correlation(x, y, "spearman") == pytest.approx(stats.spearmanr(x, y).statistic)


def test_scores_that_made_the_truth_have_a_perfect_score() -> None:
    rng = np.random.default_rng(1)
    scores = np.array([2.0, -1.0, 0.5, 3.0, 0.0, -2.0])
    truth = {}
    for rate in KEEP_RATES:
        masks = rng.random((32, 6)) < rate
        truth[rate] = (masks, masks @ scores - 7.0)
    actual = linear_datamodeling_scores(scores.tolist(), truth)
    for name, value in actual.items():
        if "centred" not in name:
            assert value == pytest.approx(1.0), name
    mean = (actual["lds_pearson_0.2"] or 0) / 2 + (actual["lds_pearson_0.5"] or 0) / 2
    assert actual["lds_pearson"] == pytest.approx(mean)
    constant = {**truth, 0.5: (truth[0.5][0], np.zeros(32))}
    actual = linear_datamodeling_scores(scores.tolist(), constant)
    assert actual["lds_pearson_0.5"] is None and actual["lds_pearson"] is None
    assert actual["lds_pearson_0.2"] == pytest.approx(1.0)


def test_a_constant_moves_the_score_but_not_the_centred_one() -> None:
    masks = np.random.default_rng(2).random((64, 8)) < 0.5
    gold = np.eye(8)[0]
    truth = {rate: (masks, masks @ gold) for rate in KEEP_RATES}
    plain = linear_datamodeling_scores(gold.tolist(), truth)
    moved = linear_datamodeling_scores((gold + 100).tolist(), truth)
    assert plain["lds_pearson"] == pytest.approx(1)
    assert (moved["lds_pearson"] or 0) < 0.6
    assert moved["lds_centred_pearson"] == pytest.approx(plain["lds_centred_pearson"])


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


@pytest.mark.parametrize("chunks", [4, 5, 6, 10, 12, 13, 40])
def test_held_masks_and_fitted_masks_are_different(chunks: int) -> None:
    item = whole_chunks(make_item("a", "g" + "-" * (chunks - 1)))
    split = MaskPlan(held=32, seed=3).split(item)
    again = MaskPlan(held=32, seed=3).split(item)
    half = (2**chunks - 2) // 2
    held = set()
    for rate in KEEP_RATES:
        masks = split.held[rate]
        assert masks.shape == (min(32, half), chunks)
        assert np.array_equal(masks, again.held[rate])
        assert masks.any(1).all() and not masks.all(1).any()
        own = {mask.tobytes() for mask in masks}
        assert len(own) == len(masks)
        held |= own
    assert split.fitted.shape == (min(FIT_MASKS, half), chunks)
    assert held.isdisjoint({mask.tobytes() for mask in split.fitted})
    other = MaskPlan(held=32, seed=4).split(item)
    assert not np.array_equal(other.fitted, split.fitted)


def test_held_masks_keep_about_as_many_as_asked_for() -> None:
    for chunks in (12, 40):
        items = [
            whole_chunks(make_item(str(index), "g" + "-" * (chunks - 1))) for index in range(30)
        ]
        splits = [MaskPlan().split(item) for item in items]
        for rate in KEEP_RATES:
            mean = np.mean([split.held[rate].mean() for split in splits])
            # Different masks keep a little more at a low rate: there are few that keep one chunk.
            assert mean == pytest.approx(rate, abs=0.07 if chunks == 12 else 0.02)


def test_the_sparse_fit_finds_what_matters() -> None:
    masks = np.random.default_rng(5).random((32, 10)) < 0.5
    effects = masks @ np.array([0, 5, 0, 0, 0, 0, -3, 0, 0, 0]) - 4
    actual = np.array(sparse_fit(masks, effects, tokens=1))
    assert actual[1] == pytest.approx(5, abs=0.1) and actual[6] == pytest.approx(-3, abs=0.1)
    assert np.abs(np.delete(actual, [1, 6])).max() < 0.1
    scaled = np.array(sparse_fit(masks, 4 * effects, tokens=4))
    assert scaled == pytest.approx(4 * actual)
    masks[:, 2] = True
    assert sparse_fit(masks, effects, tokens=1)[2] == 0
    assert sparse_fit(masks, np.zeros(32), tokens=3) == (0.0,) * 10


def test_tempered_shares_find_the_temperature_that_made_the_effects() -> None:
    rng = np.random.default_rng(7)
    items = [rng.normal(size=6) for _ in range(8)]
    spread = np.sqrt(np.mean([own.var() for own in items]))
    masks = rng.random((2, 32, 6)) < 0.5
    for multiple in MULTIPLES[2:]:
        parts = [shares(own / (multiple * spread)) for own in items]
        truths = [
            {rate: (own, own @ one) for rate, own in zip(KEEP_RATES, masks, strict=True)}
            for one in parts
        ]
        sources = ["a", "b"] * 4
        forms: tuple[tuple[Scale, list[Floats]], ...] = (
            ("logit", items),
            ("mass", [3 * np.exp(own) for own in items]),
        )
        for scale, scores in forms:
            actual = tempered_lds([own.tolist() for own in scores], truths, sources, scale)
            assert actual == pytest.approx([1.0] * 8), (multiple, scale)
        added = tempered_lds([own.tolist() for own in items], truths, sources, "additive")
        by_rate = [
            np.mean([np.corrcoef(own @ item, own @ part)[0, 1] for own in masks])
            for item, part in zip(items, parts, strict=True)
        ]
        assert added == pytest.approx(by_rate)


def test_tempered_shares_are_chosen_by_the_mean_of_the_sources_means() -> None:
    masks = np.random.default_rng(3).random((2, 64, 5)) < 0.5
    scores = [0.1, 0.5, 1.0, 1.5, 2.0]
    spread = np.std(scores)

    def truth(multiple: float) -> dict[float, Truth]:
        own = shares(np.array(scores) / (multiple * spread))
        return {rate: (kept, kept @ own) for rate, kept in zip(KEEP_RATES, masks, strict=True)}

    # Three items of one source want it cold, one of each of two others wants it hot.
    truths = [truth(0.0625)] * 3 + [truth(4.0)] * 2
    actual = tempered_lds([scores] * 5, truths, ["a", "a", "a", "b", "c"], "logit")
    assert actual[3] == actual[4] and (actual[3] or 0) > (actual[0] or 0)


def test_scores_that_are_all_alike_say_nothing_in_any_form() -> None:
    masks = np.random.default_rng(5).random((2, 32, 7)) < 0.4
    truth = {rate: (own, own.sum(1) * 1.0) for rate, own in zip(KEEP_RATES, masks, strict=True)}
    for value in (0.1, 1 / 7, 0.3, 0.5):
        actual = linear_datamodeling_scores([value] * 7, truth)
        assert actual["lds_centred_pearson"] == actual["lds_centred_spearman"] == 0.0
        assert centred([value] * 7).tolist() == [0.0] * 7
