"""Fitting probabilities to outcomes that follow known ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import InputError
from at2_rag.readout.calibration import Calibration
from at2_rag.training.calibrating.fits import Labelled, fit_logistic, source_weights
from at2_rag.training.calibrating.metrics import brier_skill, calibration_error
from at2_rag.training.calibrating.probabilities import (
    EVIDENCE_RIDGE,
    CalibrationSample,
    ScoredSample,
    fit_calibration,
    fit_evidence,
    fit_prior_weight,
    with_evidence,
    with_evidence_of,
)
from tests.training.calibrating.drawn_samples import SHAPE, TRUE, drawn, readout


def calibrate(samples: list[CalibrationSample], sign: int = 1) -> Calibration:
    scores = [sign * readout(sample.features) for sample in samples]
    return fit_calibration(with_evidence(samples, scores), SHAPE)


def labelled(samples: list[CalibrationSample]) -> list[Labelled]:
    return [Labelled(one.source, one.fold, one.features, one.gold) for one in samples]


def predicted(calibration: Calibration, sample: CalibrationSample) -> tuple[Floats, float]:
    scores, evidence = readout(sample.features), calibration.evidence(sample.features)
    if calibration is TRUE:
        likely = calibration.probabilities(scores, 1.0)
        return likely, 1 - float(np.prod(1 - likely))
    answerable = calibration.answerable(scores, evidence)
    return calibration.probabilities(scores, answerable), answerable


def test_probabilities_are_those_that_outcomes_were_drawn_with() -> None:
    fitted, others = calibrate(drawn(2500, 0)), drawn(1000, 1)
    fits, truths = ([predicted(one, sample) for sample in others] for one in (fitted, TRUE))
    p, truth = (np.concatenate([likely for likely, _ in pairs]) for pairs in (fits, truths))
    y = np.concatenate([sample.gold for sample in others])
    assert np.abs(p - truth).mean() < 0.03
    assert calibration_error(p, y) < 0.03
    assert brier_skill(p, y) > 0.9 * brier_skill(truth, y)
    pairs = zip(fits, truths, strict=True)
    assert np.mean([abs(one - other) for (_, one), (_, other) in pairs]) < 0.06


def test_the_second_readout_is_a_ridge_logistic_regression() -> None:
    samples = labelled(drawn(300, 3))
    weight, bias = fit_evidence(samples)
    features = np.concatenate([sample.terms for sample in samples]).astype(float)
    mean, scale = features.mean(0), features.std(0)
    sizes = np.array([len(sample.labels) for sample in samples])
    peer = LogisticRegression(C=1 / EVIDENCE_RIDGE, tol=1e-8).fit(
        (features - mean) / scale,
        np.concatenate([sample.labels for sample in samples]),
        sample_weight=np.repeat(1 / (len(samples) * sizes), sizes),
    )
    assert weight == pytest.approx(peer.coef_[0] / scale, abs=2e-3)
    assert bias == pytest.approx(peer.intercept_[0] - mean @ (peer.coef_[0] / scale), abs=5e-3)


def test_every_source_counts_the_same() -> None:
    few = labelled(drawn(150, 4))
    many = [one._replace(labels=~one.labels) for one in labelled(drawn(300, 5, "b"))]
    once, thrice = fit_evidence([*few, *many]), fit_evidence([*few, *many * 3])
    assert once[0] == pytest.approx(thrice[0], abs=5e-3)
    assert np.abs(fit_evidence(few)[0] - once[0]).max() > 0.05


def test_evidence_of_a_sample_is_by_a_readout_that_never_saw_its_fold() -> None:
    samples = drawn(60, 6)
    for row in with_evidence(samples, [readout(sample.features) for sample in samples]):
        others = [sample for sample in samples if sample.fold != row.sample.fold]
        weight, bias = fit_evidence(labelled(others))
        odds = np.exp(row.sample.features @ weight + bias)
        assert row.evidence == pytest.approx(np.log(odds.sum()), abs=1e-6)


def test_a_chunk_that_scores_higher_is_never_less_likely() -> None:
    assert min(calibrate(drawn(300, 7), sign=-1).chunk[:2]) >= 0


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (lambda gold: gold & False, "0 of [0-9]+ times a chunk's gold label"),
        (lambda gold: np.append(gold[1:], True), "9 of 9 times a call's outcome"),
    ],
)
def test_outcomes_of_one_kind_are_refused(change: Callable[[Bools], Bools], outcome: str) -> None:
    samples = [dataclasses.replace(one, gold=change(one.gold)) for one in drawn(9, 8)]
    with pytest.raises(InputError, match=f"but {outcome} is true; pass more"):
        calibrate(samples)


def test_an_earlier_calibration_counts_as_three_samples() -> None:
    samples = [
        one._replace(terms=one.terms[:, :3], weight=1.0 + (index % 2))
        for index, one in enumerate(labelled([*drawn(12, 10), *drawn(6, 11, "b")]))
    ]
    start = (0.8, -1.5, 0.3, -0.5)
    fitted = fit_logistic(samples, name="label", start=start)
    weights = source_weights([one.source for one in samples], [one.weight for one in samples])
    terms = np.concatenate([one.terms for one in samples]).astype(float)
    mean, scale = terms.mean(0), terms.std(0)

    def loss(numbers: Floats) -> float:
        total = 0.0
        for weight, one in zip(weights, samples, strict=True):
            logits = one.terms.astype(float) @ numbers[:-1] + numbers[-1]
            total += weight * np.logaddexp(0.0, np.where(one.labels, -logits, logits)).mean()
        moved = numbers - np.array(start)
        moves = np.append(moved[:-1] * scale, moved[-1] + moved[:-1] @ mean)
        return float(total + 3 / len(samples) * (moves @ moves) / 2)

    by_hand = minimize(loss, np.array(start), method="BFGS", options={"gtol": 1e-8}).x
    assert fitted == pytest.approx(by_hand, abs=1e-3)
    [few] = samples[:1]
    near = fit_logistic([few._replace(labels=few.labels & False)], name="label", start=start)
    assert near[-1] < start[-1]  # of one kind alone, which can't be fitted without a start
    many = labelled(drawn(1500, 12))
    far = fit_logistic(many, name="label", start=(0.0, 0.0, 0.0, 0.0, 3.0))
    assert far == pytest.approx(fit_logistic(many, name="label"), abs=0.12)


def test_an_adapted_calibration_keeps_its_readout_and_comes_true_elsewhere() -> None:
    shifted = dataclasses.replace(TRUE, chunk=(1.0, 0.0, 0.0, 1.0), call=(0.0, 0.0, 0.5, 0.0, 2.0))
    few, others = drawn(30, 13), drawn(600, 14)
    scored = with_evidence_of(shifted, few, [readout(sample.features) for sample in few])
    assert [row.evidence for row in scored] == [shifted.evidence(one.features) for one in few]
    adapted = fit_calibration(scored, SHAPE, start=shifted)
    assert np.array_equal(adapted.evidence_weight, TRUE.evidence_weight)
    gold = np.concatenate([one.gold for one in others])

    def error(calibration: Calibration) -> float:
        likely = [predicted(calibration, one)[0] for one in others]
        return calibration_error(np.concatenate(likely), gold)

    assert error(adapted) < 0.1 < 0.25 < error(shifted)


def ranked(count: int, seed: int, weight: float) -> list[ScoredSample]:
    """Draw samples with one gold chunk each, chosen by twice the score and weighted prior."""
    rng = np.random.default_rng(seed)
    scored = []
    for _ in range(count):
        size = int(rng.integers(3, 12))
        scores, prior = rng.normal(0, 1, size), 1 / rng.permutation(np.arange(1.0, size + 1))
        logits = 2 * (scores + weight * (prior - prior.mean()))
        gold = np.arange(size) == int(np.argmax(logits + rng.gumbel(size=size)))
        features = np.zeros((size, 4), np.float32)
        priors: dict[Any, Floats] = {"score": prior - prior.mean()}
        sample = CalibrationSample("a", 0, features, gold, priors=priors)
        scored.append(ScoredSample(sample, scores, 0.0))
    return scored


def test_the_priors_weight_is_the_one_that_the_outcomes_follow() -> None:
    assert fit_prior_weight(ranked(2000, 0, 1.5), "score") == pytest.approx(1.5, abs=0.2)
    assert fit_prior_weight(ranked(2000, 1, 0.0), "score") == pytest.approx(0.0, abs=0.15)
    assert fit_prior_weight(ranked(2000, 2, -3.0), "score") == 0.0  # never against the retriever


def test_without_retrieval_scores_no_weight_is_learned_and_twins_teach_none() -> None:
    scored = ranked(20, 0, 1.0)
    twins = [
        one._replace(sample=dataclasses.replace(one.sample, kind="with an echo")) for one in scored
    ]
    assert fit_prior_weight(scored, "cosine") is None
    assert fit_prior_weight(twins, "score") is None
    both = fit_prior_weight([*scored, *twins], "score")
    assert both == pytest.approx(fit_prior_weight(scored, "score"))


def test_weights_of_sources_by_hand() -> None:
    weights = source_weights(["a"] * 3 + ["b"])
    assert weights.tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])
    weights = source_weights(["a"] * 3 + ["b"], [3, 1, 1, 7])
    assert weights.tolist() == pytest.approx([0.3, 0.1, 0.1, 0.5])


def test_a_list_as_retrieved_counts_as_much_as_three_others() -> None:
    samples = drawn(40, 9)
    evidence = with_evidence(samples, [readout(sample.features) for sample in samples])
    fitted = fit_calibration(evidence, SHAPE)
    repeated = [row for row in evidence for _ in range(3 if row.sample.is_retrieved else 1)]
    plain = [
        row._replace(sample=dataclasses.replace(row.sample, kind="twin with gold"))
        for row in repeated
    ]
    assert fitted.chunk == pytest.approx(fit_calibration(plain, SHAPE).chunk, abs=1e-4)
