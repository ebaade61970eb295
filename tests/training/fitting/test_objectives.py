"""Objectives: planted effects are found, labels that are guesses aren't fitted to."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest

from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec
from at2_rag.training.answering.ablation import leave_one_out
from at2_rag.training.fitting.cross_validation import Candidate, CandidateResult, CrossValidation
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.objectives import OBJECTIVES, Objective, fit_objective
from at2_rag.training.fitting.samples import LEAST_CONTRIBUTION, Samples
from tests.training.fitting.small_samples import TELLING, planted_samples

SPEC = FeatureSpec("log", ("together", "apart"))


def judge(samples: Samples, design: Candidate) -> CandidateResult:
    return CrossValidation(samples, np.arange(len(samples.sources)) % 5).judge(design)


def design(objective: Objective, *, spec: FeatureSpec = SPEC, depth: int = 2) -> Candidate:
    return Candidate(spec, depth, 1e-2, objective)


def by_sample(samples: Samples, values: np.ndarray) -> list[np.ndarray]:
    return samples.features.by_sample(values)


def test_effects_are_computed_by_sample() -> None:
    samples = planted_samples(8)
    effects = samples.effects
    assert effects is not None and samples.labels is not None
    for masks, likelihoods, drops, contributions, gold in zip(
        effects.masks,
        effects.likelihoods,
        by_sample(samples, effects.drops),
        by_sample(samples, effects.contributions),
        by_sample(samples, samples.labels),
        strict=True,
    ):
        chunks = len(drops)
        assert masks.shape == (len(likelihoods), chunks)
        assert np.array_equal(masks[: chunks + 1], leave_one_out(chunks))
        nats = -np.log1p(np.exp(-likelihoods)) / 3  # three tokens, equally likely
        assert drops == pytest.approx(nats[0] - nats[1 : chunks + 1], abs=1e-5)
        assert np.argmax(contributions) == np.argmax(gold)
    assert np.array_equal(samples.relevant, samples.labels)
    unlabelled = dataclasses.replace(samples, labels=None)
    assert np.array_equal(unlabelled.relevant, effects.contributions >= LEAST_CONTRIBUTION)


@pytest.mark.parametrize("objective", get_args(Objective))
def test_what_is_relevant_is_found_out_of_fold(objective: Objective) -> None:
    result = judge(planted_samples(), design(objective))
    assert result.ndcg > 0.95 and set(result.by_source) == {"even", "odd"}
    assert result.faithfulness is not None and result.share_faithfulness is not None
    assert result.faithfulness > (0.85 if objective == "pearson" else 0.7)
    if objective != "pearson":  # one chunk is relevant, which is what shares say
        assert result.share_faithfulness > 0.95
    blind = planted_samples()
    blind.features.log[(slice(None), *TELLING)] = 0
    assert judge(blind, design(objective)).ndcg < 0.8


def test_objectives_need_what_they_are_fitted_to() -> None:
    unlabelled = planted_samples(20, labels=False)
    for objective in ("evidence", "mixed"):
        with pytest.raises(InputError, match="needs gold labels"):
            judge(unlabelled, design(objective))
    assert judge(unlabelled, design("drops")).ndcg > 0.9
    unablated = dataclasses.replace(planted_samples(20), effects=None)
    for objective in ("pearson", "contributions", "drops", "mixed"):
        with pytest.raises(InputError, match="needs ablations"):
            judge(unablated, design(objective))  # type: ignore[arg-type]
    assert judge(unablated, design("evidence")).faithfulness is None
    assert {name for names in OBJECTIVES.values() for name in names} == set(get_args(Objective))


@pytest.mark.parametrize("objective", ["evidence", "mixed"])
def test_labels_say_nothing_of_samples_that_are_all_gold(objective: Objective) -> None:
    samples, first = planted_samples(), np.arange(60) < 10
    assert samples.labels is not None and samples.effects is not None
    of_first = np.repeat(first, samples.counts)
    flat = dataclasses.replace(samples, labels=samples.labels | of_first)
    matrix, everything = samples.features.matrix(SPEC, 2), np.ones(60, dtype=bool)
    fit = fit_objective(objective, flat, matrix, ridge=1e-2, chosen=everything)
    target, used = samples.labels.astype(float), everything
    if objective == "evidence":
        used = ~first
    else:
        contributions = np.maximum(samples.effects.contributions, 0)
        sums = [part.sum() for part in by_sample(samples, contributions)]
        shares = contributions / np.repeat(sums, samples.counts)
        target = np.where(of_first, shares, 0.7 * target + 0.3 * shares)
    data = ListwiseData(matrix, target, samples.counts)
    expected = fit_listwise(data.take(used), ridge=1e-2)
    assert fit.weight == pytest.approx(expected.weight, rel=1e-3, abs=1e-5)
    if objective == "evidence":
        with pytest.raises(InputError, match="no sample says anything about 'evidence'"):
            fit_objective(objective, flat, matrix, ridge=1e-2, chosen=first)


@pytest.mark.parametrize("objective", ["evidence", "mixed"])
def test_chunks_whose_label_is_a_guess_are_neither_fitted_to_nor_judged(
    objective: Objective,
) -> None:
    """One chunk of each sample that isn't gold looks like gold."""
    samples, rng = planted_samples(), np.random.default_rng(7)
    assert samples.labels is not None and samples.effects is not None
    impostors = np.zeros(len(samples.labels), dtype=bool)
    for rows in by_sample(samples, np.arange(len(samples.labels))):
        impostors[rng.choice(rows[~samples.labels[rows]])] = True
    samples.features.log[impostors, *TELLING] += 6
    doubtful = dataclasses.replace(samples, doubtful=impostors)
    matrix = samples.features.matrix(SPEC, 2)
    everything = np.ones(len(samples.sources), dtype=bool)
    fit = fit_objective(objective, doubtful, matrix, ridge=1e-2, chosen=everything)
    kept, counts = ~impostors, samples.counts - 1
    relevance = samples.labels[kept].astype(float)
    if objective == "mixed":
        contributions = np.maximum(samples.effects.contributions[kept], 0)
        sums = [part.sum() for part in np.split(contributions, np.cumsum(counts)[:-1])]
        relevance = 0.7 * relevance + 0.3 * contributions / np.repeat(sums, counts)
    data = ListwiseData(matrix[kept], relevance, counts)
    expected = fit_listwise(data, ridge=1e-2)
    assert fit.weight == pytest.approx(expected.weight, rel=1e-4, abs=1e-6)
    assert (
        judge(doubtful, design(objective)).ndcg
        > 0.95
        > 0.9
        > judge(samples, design(objective)).ndcg
    )


@pytest.mark.parametrize("objective", get_args(Objective))
def test_every_objective_keeps_to_a_limit_of_groups(objective: Objective) -> None:
    samples = planted_samples()
    matrix, everything = samples.features.matrix(SPEC, 2), np.ones(60, dtype=bool)
    groups = np.arange(12) // 3
    fit = fit_objective(
        objective, samples, matrix, ridge=1e-2, chosen=everything, groups=(groups, 1)
    )
    telling = np.ravel_multi_index(TELLING, (2, 2, 3))
    assert set(groups[fit.weight != 0].tolist()) == {groups[telling]}
