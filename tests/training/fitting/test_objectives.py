"""Objectives: planted effects are found, labels that are guesses aren't fitted to."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest
from scipy.optimize import minimize

from at2_rag.arrays import Floats
from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec
from at2_rag.training.answering.ablation import leave_one_out
from at2_rag.training.fitting.cross_validation import Candidate, CandidateResult, CrossValidation
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.objectives import OBJECTIVES, Objective, fit_objective
from at2_rag.training.fitting.samples import LEAST_CONTRIBUTION, Samples
from at2_rag.training.fitting.soft_labels import soft_labels
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
        assert result.share_faithfulness > (0.9 if objective == "teacher" else 0.95)  # it is soft
    blind = planted_samples()
    blind.features.log[(slice(None), *TELLING)] = 0
    assert judge(blind, design(objective)).ndcg < 0.8


def test_objectives_need_what_they_are_fitted_to() -> None:
    unlabelled = planted_samples(20, labels=False)
    for objective in ("evidence", "mixed"):
        with pytest.raises(InputError, match="needs gold labels"):
            judge(unlabelled, design(objective))
    assert judge(unlabelled, design("drops")).ndcg > 0.9
    untaught = dataclasses.replace(planted_samples(20), teacher=None)
    with pytest.raises(InputError, match="'teacher' needs a teacher's scores"):
        judge(untaught, design("teacher"))
    unablated = dataclasses.replace(untaught, effects=None)
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


# --- a teacher -------------------------------------------------------------------------------


def taught(samples: Samples, scores: Floats, *, labels: bool = True) -> Samples:
    """Return the samples with a teacher's scores instead of ablations."""
    return dataclasses.replace(
        samples,
        effects=None,
        labels=samples.labels if labels else None,
        teacher=soft_labels(scores, samples.counts, np.array(samples.sources)),
    )


def linear_teacher(samples: Samples, weight: Floats) -> Floats:
    """Return scores that are a linear function of the features, on a scale for each source."""
    by_row = np.repeat(np.array(samples.sources) == "even", samples.counts)
    scores = samples.features.matrix(SPEC, 2).astype(np.float64) @ weight
    return np.asarray(np.where(by_row, 0.01 * scores + 3, 50 * scores - 7))


def test_a_teacher_that_is_linear_in_the_features_is_recovered() -> None:
    weight = np.linspace(-1, 1, 12)
    samples = taught(planted_samples(200), linear_teacher(planted_samples(200), weight))
    matrix, everything = samples.features.matrix(SPEC, 2), np.ones(200, dtype=bool)
    fit = fit_objective("teacher", samples, matrix, ridge=1e-6, chosen=everything)
    assert np.corrcoef(fit.weight, weight)[0, 1] > 0.995
    scores = by_sample(samples, fit.scores(matrix))
    teacher = by_sample(samples, matrix.astype(np.float64) @ weight)
    same = [np.argmax(one) == np.argmax(other) for one, other in zip(scores, teacher, strict=True)]
    assert np.mean(same) > 0.97


def test_the_fit_to_a_teacher_is_the_least_of_the_loss_as_written() -> None:
    """Cross-entropy of the two softmaxes and the ridge, by another minimiser in plain float64."""
    samples = planted_samples(40)
    rng = np.random.default_rng(3)
    scores = linear_teacher(samples, rng.normal(size=12)) + rng.normal(size=samples.counts.sum())
    scores[rng.random(len(scores)) < 0.2] = np.nan
    samples = taught(samples, scores)
    assert samples.teacher is not None
    matrix = samples.features.matrix(SPEC, 2)
    fit = fit_objective("teacher", samples, matrix, ridge=1e-2, chosen=np.ones(40, dtype=bool))
    lists = [
        (part[~np.isnan(shares)].astype(np.float64), shares[~np.isnan(shares)])
        for part, shares in zip(
            by_sample(samples, matrix), by_sample(samples, samples.teacher), strict=True
        )
        if not np.isnan(shares).all()
    ]
    rows = np.concatenate([part for part, _ in lists])
    mean, deviation = rows.mean(0), rows.std(0)

    def loss(vector: Floats) -> float:
        total = 0.0
        for part, shares in lists:
            fitted = (part - mean) / deviation @ vector
            total -= float(shares @ (fitted - np.log(np.exp(fitted).sum())))
        return total / len(lists) + 1e-2 / 2 * float(vector @ vector)

    other = minimize(loss, np.zeros(12), method="BFGS", options={"gtol": 1e-7})
    assert loss(fit.weight * deviation) <= other.fun + 1e-6
    assert fit.weight * deviation == pytest.approx(other.x, abs=5e-3)


def test_mixed_is_gold_where_only_that_is_known_the_teacher_where_only_that_and_else_both() -> None:
    samples = planted_samples(60)
    assert samples.labels is not None
    without_gold = np.arange(60) % 3 == 0
    of_without = np.repeat(without_gold, samples.counts)
    scores = linear_teacher(samples, np.random.default_rng(5).normal(size=12))
    scores[np.repeat(np.arange(60) % 5 == 4, samples.counts)] = np.nan
    # In a list without gold a chunk without a score is left out; beside gold it is no gold chunk.
    firsts = np.cumsum(samples.counts) - samples.counts
    scores[firsts] = np.nan
    samples = dataclasses.replace(samples, labels=samples.labels & ~of_without)
    samples = taught(samples, scores)
    assert samples.labels is not None and samples.teacher is not None
    matrix = samples.features.matrix(SPEC, 2)
    kept, targets, counts = [], [], []
    start = 0
    for number, size in enumerate(samples.counts.tolist()):
        rows = np.arange(start, start + size)
        start += size
        gold, shares = samples.labels[rows].astype(float), samples.teacher[rows]
        if without_gold[number]:
            rows, target = rows[~np.isnan(shares)], shares[~np.isnan(shares)]
            if len(rows) == 0:
                continue
        elif np.isnan(shares).all():
            target = gold
        else:
            target = 0.7 * gold + 0.3 * np.nan_to_num(shares)
        kept.append(rows)
        targets.append(target)
        counts.append(len(rows))
    data = ListwiseData(matrix[np.concatenate(kept)], np.concatenate(targets), np.array(counts))
    expected = fit_listwise(data, ridge=1e-2)
    everything = np.ones(60, dtype=bool)
    fit = fit_objective("mixed", samples, matrix, ridge=1e-2, chosen=everything)
    assert fit.weight == pytest.approx(expected.weight, rel=1e-4, abs=1e-6)


def test_gold_labels_judge_where_there_are_any_else_the_teachers_best_chunk() -> None:
    samples = planted_samples()
    assert samples.labels is not None and samples.teacher is not None
    assert samples.judged_by == "gold" and np.array_equal(samples.relevant, samples.labels)
    unlabelled = dataclasses.replace(samples, labels=None)
    assert unlabelled.judged_by == "ablation"
    alone = dataclasses.replace(unlabelled, effects=None)
    assert alone.judged_by == "teacher"
    known = np.repeat(np.arange(60) % 5 != 4, samples.counts)
    assert np.array_equal(alone.relevant, samples.labels & known)
    assert np.array_equal(alone.certain, known)
    result = judge(alone, design("teacher"))
    assert result.ndcg > 0.95 and np.isnan(result.quality[4::5]).all()
