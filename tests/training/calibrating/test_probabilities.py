"""Fitting probabilities to outcomes that follow known ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from at2_rag.errors import InputError
from at2_rag.readout.calibration import Calibration
from at2_rag.training.calibrating.metrics import brier_skill, calibration_error
from at2_rag.training.calibrating.probabilities import (
    EVIDENCE_RIDGE,
    LabelledCall,
    fit_calibration,
    fit_evidence,
    fit_prior_weight,
    out_of_fold_evidence,
)

Floats = npt.NDArray[np.float64]

SHAPE = (1, 2, 2)
SCORE = np.array([1.5, -0.5, 0.0, 0.0])
EVIDENCE = np.array([0.0, 0.0, 1.2, -0.8])
TRUE = Calibration(
    EVIDENCE.reshape(SHAPE).astype(np.float32), -1.0, (0.3, 0.8, 0.5, 0.4), (0.9, 0.5, 0.6)
)


def readout(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    scores: npt.NDArray[np.float64] = features.astype(float) @ SCORE
    return scores


def calibrate(calls: list[LabelledCall]) -> Calibration:
    return fit_calibration(calls, [readout(own.features) for own in calls], SHAPE)


def drawn(count: int, seed: int, source: str = "a") -> list[LabelledCall]:
    """Draw calls whose outcomes have the probabilities of `TRUE`."""
    rng = np.random.default_rng(seed)
    calls = []
    for number in range(count):
        features = rng.normal(0, 1.5, (int(rng.integers(2, 12)), 4)).astype(np.float32)
        logits = TRUE.evidence(features)
        best, scores = float(logits.max()), readout(features)
        calls.append(
            LabelledCall(
                source,
                number % 3,
                features,
                gold=rng.random(len(features)) < 1 / (1 + np.exp(-logits)),
                matters=rng.random(len(features)) < TRUE.probabilities(scores, best),
                answerable=bool(rng.random() < TRUE.answerable(scores, best)),
            )
        )
    return calls


def test_probabilities_are_those_that_outcomes_were_drawn_with() -> None:
    fitted = calibrate(drawn(2500, 0))
    found, expected, happened = [], [], []
    for own in drawn(1000, 1):
        scores = readout(own.features)
        assert own.matters is not None
        found.append(fitted.probabilities(scores, float(fitted.evidence(own.features).max())))
        expected.append(TRUE.probabilities(scores, float(TRUE.evidence(own.features).max())))
        happened.append(own.matters)
    p, truth, y = np.concatenate(found), np.concatenate(expected), np.concatenate(happened)
    assert np.abs(p - truth).mean() < 0.03
    assert calibration_error(p, y) < 0.03
    assert brier_skill(p, y) > 0.9 * brier_skill(truth, y)
    answerable = np.array(
        [
            (
                fitted.answerable(
                    readout(own.features), float(fitted.evidence(own.features).max())
                ),
                TRUE.answerable(readout(own.features), float(TRUE.evidence(own.features).max())),
            )
            for own in drawn(500, 2)
        ]
    )
    assert np.abs(answerable[:, 0] - answerable[:, 1]).mean() < 0.06


def test_the_second_readout_is_a_ridge_logistic_regression() -> None:
    calls = drawn(300, 3)
    weight, bias = fit_evidence(calls)
    features = np.concatenate([own.features for own in calls]).astype(float)
    mean, scale = features.mean(0), features.std(0)
    gold = np.concatenate([own.gold for own in calls])
    sizes = np.array([len(own.gold) for own in calls])
    weights = np.repeat(1 / (len(calls) * sizes), sizes)
    peer = LogisticRegression(C=1 / EVIDENCE_RIDGE, tol=1e-8)
    peer.fit((features - mean) / scale, gold, sample_weight=weights)
    assert weight == pytest.approx(peer.coef_[0] / scale, abs=2e-3)
    assert bias == pytest.approx(peer.intercept_[0] - mean @ (peer.coef_[0] / scale), abs=5e-3)


def test_every_source_counts_the_same() -> None:
    few, many = drawn(150, 4), drawn(300, 5, "b")
    mirrored = [dataclasses.replace(own, gold=~own.gold) for own in many]
    one, other = fit_evidence([*few, *mirrored]), fit_evidence([*few, *mirrored * 3])
    assert one[0] == pytest.approx(other[0], abs=5e-3)
    alone = fit_evidence(few)
    assert np.abs(alone[0] - one[0]).max() > 0.05


def test_evidence_of_a_call_is_by_a_readout_that_never_saw_its_fold() -> None:
    calls = drawn(60, 6)
    best = out_of_fold_evidence(calls)
    for fold in range(3):
        weight, bias = fit_evidence([own for own in calls if own.fold != fold])
        for place, own in enumerate(calls):
            if own.fold == fold:
                assert best[place] == pytest.approx(max(own.features @ weight) + bias, abs=1e-6)


def test_a_chunk_that_scores_higher_is_never_less_likely() -> None:
    calls = drawn(300, 7)
    fitted = fit_calibration(calls, [-readout(own.features) for own in calls], SHAPE)
    assert min(fitted.chunk[:2]) >= 0


def test_outcomes_of_one_kind_are_refused() -> None:
    calls = drawn(9, 8)
    for what, changes in (
        ("chunk's outcome", {"matters": None}),
        ("call's outcome", {"answerable": True}),
        ("call's outcome", {"answerable": None}),
    ):
        told = f"needs both kinds of each outcome, but .* a {what} is true; pass more"
        with pytest.raises(InputError, match=told):
            changed = [dataclasses.replace(own, **changes) for own in calls]
            calibrate(changed)
    with pytest.raises(InputError, match="but 0 of 0 times a chunk's gold label"):
        fit_evidence([])


def ranked(count: int, seed: int, weight: float) -> tuple[list[LabelledCall], list[Floats]]:
    """Draw calls with one gold chunk each, chosen by twice the score and weighted prior."""
    rng = np.random.default_rng(seed)
    calls, scores = [], []
    for _ in range(count):
        size = int(rng.integers(3, 12))
        own, prior = rng.normal(0, 1, size), 1 / rng.permutation(np.arange(1.0, size + 1))
        logits = 2 * (own + weight * (prior - prior.mean()))
        gold = np.zeros(size, dtype=bool)
        gold[int(np.argmax(logits + rng.gumbel(size=size)))] = True
        calls.append(
            LabelledCall(
                "a",
                0,
                np.zeros((size, 4), np.float32),
                gold,
                priors={"score": prior - prior.mean()},
            )
        )
        scores.append(own)
    return calls, scores


def test_the_priors_weight_is_the_one_that_the_outcomes_follow() -> None:
    assert fit_prior_weight(*ranked(3000, 0, 1.5), "score") == pytest.approx(1.5, abs=0.2)
    assert fit_prior_weight(*ranked(3000, 1, 0.0), "score") == pytest.approx(0.0, abs=0.15)
    assert fit_prior_weight(*ranked(3000, 2, -3.0), "score") == 0.0  # never against the retriever


def test_without_ranks_no_weight_is_learned() -> None:
    calls, scores = ranked(20, 0, 1.0)
    unknown = [dataclasses.replace(own, priors={}) for own in calls]
    assert fit_prior_weight(unknown, scores, "score") is None
    assert fit_prior_weight(calls, scores, "cosine") is None
    twins = [dataclasses.replace(own, answerable=True) for own in calls]
    assert fit_prior_weight(twins, scores, "score") is None
    assert fit_prior_weight([*calls, *twins], [*scores, *scores], "score") == pytest.approx(
        fit_prior_weight(calls, scores, "score")
    )
