"""Which chunks are on a shortlist, and what the others score: by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag.errors import HeadWeightsError
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.shortlist import Design, Shortlist, used_heads
from tests.tiny_weights import change_description

WEIGHT = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0]], dtype=np.float32)


def shortlist(**numbers: Any) -> Shortlist:
    return Shortlist(WEIGHT, 0.5, **numbers)


def weights_with(one: Shortlist | None, *passes: Pass) -> HeadWeights:
    shape = (len(passes), 2, 4)
    weight = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return HeadWeights(weight, 0.25, FeatureSpec("log", passes), shortlist=one)


def test_late_scores() -> None:
    features = np.zeros((2, 8))
    features[0, 0], features[1, 7], features[1, 2] = 3.0, 1.0, 100.0
    assert shortlist().late_scores(features).tolist() == [3.5, -1.5]
    beside = shortlist(slope=2.0, constant=-1.0).beside(features)
    assert beside.tolist() == [6.0, -4.0]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], []),
        ([1.0], [0]),
        ([1.0, 9.0], [0, 1]),  # at least two
        ([1.0, 9.0, 2.0, 0.0], [1, 2]),
        ([9.0, 8.0, 7.0, 6.9], [0, 1, 2]),  # within two of the best
        ([9.0, 8.9, 8.8, 8.7, 8.6], [0, 1, 2, 3]),  # at most four
        ([5.0, 5.0, 5.0, 5.0, 5.0, 5.0], [0, 1, 2, 3]),
        ([0.0, 5.0, 5.0, 9.0], [1, 3]),  # of equal ones the first
    ],
    ids=str,
)
def test_the_best_and_what_is_near_them_are_chosen(
    scores: list[float], expected: list[int]
) -> None:
    chosen = shortlist(least=2, most=4, gap=2.0).chosen(np.array(scores))
    assert chosen.dtype == bool and np.flatnonzero(chosen).tolist() == expected


def test_the_key_heads_that_have_a_weight() -> None:
    assert shortlist().key_heads(4) == ((0, 0), (1, 3))
    assert shortlist().key_heads(2) == ((0, 0), (1, 1))
    other = np.zeros((2, 4), dtype=np.float32)
    assert used_heads([other], 2) == ()
    other[0, 1] = -1e-9
    assert used_heads([WEIGHT, other], 4) == ((0, 0), (0, 1), (1, 3))
    assert used_heads([WEIGHT, -WEIGHT], 4) == ((0, 0), (1, 3)), "signs don't cancel out"


def test_the_digest_is_of_what_decides_the_choice() -> None:
    known = shortlist().digest
    assert shortlist(slope=3.0, constant=1.0).digest == known
    for change in ({"gap": 1.0}, {"most": 7}, {"weight": 2 * WEIGHT}):
        changed: Any = change
        assert replace(shortlist(), **changed).digest != known


@pytest.mark.parametrize(
    "numbers",
    [
        {"least": 0},
        {"least": 4, "most": 3},
        {"gap": -0.1},
        {"slope": -1.0},
        {"constant": np.nan},
        {"gap": np.inf},
        {"weight": np.full((2, 4), np.inf, dtype=np.float32)},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(HeadWeightsError, match="expected finite weights and numbers, 1 <= least"):
        Shortlist(**{"weight": WEIGHT, "bias": 0.5, **numbers})


# --- in head weights -------------------------------------------------------------------------


def test_head_weights_score_chunks_beside_the_shortlist_by_their_late_features() -> None:
    weights = weights_with(shortlist(slope=2.0, constant=-1.0), "late", "apart")
    features = np.ones((2, 16))
    features[1, 8:] = np.nan
    late = 1.0 - 2.0 + 0.5
    assert weights.score(features).tolist() == [sum(range(16)) + 0.25, 2 * late - 1]


def test_key_heads_of_all_that_is_read_late() -> None:
    weight = np.zeros((2, 2, 4), dtype=np.float32)
    weight[0, 1, 1] = weight[1, 0, 2] = 1  # the second pass is apart
    spec = FeatureSpec("log", ("late", "apart"))
    plain = HeadWeights(weight, 0.0, spec)
    assert plain.key_heads(4) == ((1, 1),)
    assert replace(plain, shortlist=shortlist()).key_heads(4) == ((0, 0), (1, 1), (1, 3))
    assert weights_with(None, "apart").key_heads(4) == ()


@pytest.mark.parametrize("passes", [("late",), ("together", "apart"), ("apart", "late")], ids=str)
def test_a_shortlist_needs_late_first_and_another_pass(passes: Any) -> None:
    with pytest.raises(HeadWeightsError, match="belongs to weights for the log of 'late'"):
        weights_with(shortlist(), *passes)
    with pytest.raises(HeadWeightsError, match="belongs to weights for the log of 'late'"):
        weights_with(Shortlist(WEIGHT[:1], 0.0), "late", "apart")
    with pytest.raises(HeadWeightsError, match="for the mass of the passes late, apart"):
        replace(
            weights_with(shortlist(), "late", "apart"), spec=FeatureSpec("mass", ("late", "apart"))
        )


def test_a_saved_shortlist_is_the_same(tmp_path: Path) -> None:
    one = shortlist(slope=0.1, constant=-3.0, least=1, most=9, gap=0.75)
    weights_with(one, "late", "apart").save(tmp_path)
    again = HeadWeights.load(tmp_path).shortlist
    assert again is not None
    assert (again.numbers(), again.digest) == (one.numbers(), one.digest)
    assert again.weight.dtype == np.float32


@pytest.mark.parametrize("numbers", [{}, [], {"least": "x"}, {"least": 0}, {"slope": None}])
def test_damaged_numbers_are_refused(tmp_path: Path, numbers: Any) -> None:
    weights_with(shortlist(), "late", "apart").save(tmp_path)
    if numbers:
        numbers = {**shortlist().numbers(), **numbers}
    change_description(tmp_path, shortlist=numbers)
    with pytest.raises(HeadWeightsError, match="holds unusable head weights"):
        HeadWeights.load(tmp_path)


# --- what a readout is fitted to -------------------------------------------------------------


def design_features(rng: np.random.Generator) -> tuple[Any, Any]:
    features = rng.normal(size=(30, 16)).astype(np.float32)
    beside = np.arange(30) % 3 != 0
    features[beside, 8:] = np.nan
    return features, beside


def test_a_design_by_hand() -> None:
    features, beside = design_features(np.random.default_rng(0))
    terms = Design.of(shortlist(), features).terms(features)
    assert terms.shape == (30, 18) and np.isfinite(terms).all()
    np.testing.assert_allclose(terms[~beside, :16], features[~beside], rtol=1e-6)
    mean = features[~beside].astype(np.float64).mean(0)
    np.testing.assert_allclose(terms[beside, :16], [mean] * beside.sum(), rtol=1e-5)
    late = features[:, 0].astype(np.float64) - 2.0 * features[:, 7] + 0.5
    np.testing.assert_allclose(terms[:, 16], late - late.mean(), atol=1e-5)
    assert (terms[:, 17] == beside).all()


def test_head_weights_of_a_fit_have_the_scores_of_the_fit() -> None:
    rng = np.random.default_rng(1)
    features, _ = design_features(rng)
    design = Design.of(shortlist(), features)
    weight, bias = np.abs(rng.normal(size=18)), -0.7
    expected = design.terms(features).astype(np.float64) @ weight + bias
    of_features, of_all, others = design.fitted(weight, bias)
    fitted = HeadWeights(
        of_features.reshape(2, 2, 4).astype(np.float32),
        of_all,
        FeatureSpec("log", ("late", "apart")),
        shortlist=others,
    )
    np.testing.assert_allclose(fitted.score(features), expected, atol=1e-4)


def test_a_slope_is_never_negative() -> None:
    features, beside = design_features(np.random.default_rng(2))
    design = Design.of(shortlist(), features)
    weight = np.zeros(18)
    weight[16:] = -3.0, 2.0
    *_, one = design.fitted(weight, 0.25)
    assert one.slope == 0.0
    assert one.beside(features[beside]).tolist() == pytest.approx([2.25] * beside.sum())


def test_a_design_without_a_chunk_beside_the_shortlist() -> None:
    features = np.random.default_rng(3).normal(size=(5, 16)).astype(np.float32)
    terms = Design.of(shortlist(), features).terms(features)
    np.testing.assert_allclose(terms[:, :16], features)
    assert not terms[:, 17].any()
