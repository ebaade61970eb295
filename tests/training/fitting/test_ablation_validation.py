"""Designs judged by ablations: planted effects are found, figures agree with SciPy's."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr

from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec
from at2_rag.training.answering.ablation import draw_masks, leave_one_out
from at2_rag.training.collection.store import ShardAblations
from at2_rag.training.fitting.ablation_validation import (
    LEAST_CONTRIBUTION,
    AblationCandidate,
    AblationResult,
    AblationSamples,
    Objective,
    cross_validate_ablations,
    faithfulness,
)
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import feature_matrix

PASSES, LAYERS, HEADS = 2, 2, 3
TELLING = (0, 1, 2)
"""The one feature (pass, layer, head) that says how much a chunk matters."""


def make_samples(
    count: int = 60, *, seed: int = 0, labels: bool = True, fewest: int = 4
) -> AblationSamples:
    """An answer's likelihood is the sum of what the kept chunks matter, and a little noise."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(fewest, 9, count)
    features = rng.normal(size=(counts.sum(), PASSES, LAYERS, HEADS)).astype(np.float16)
    matters = np.zeros(counts.sum())
    ends = np.cumsum(counts)
    masks, effects = [], []
    for end, chunks in zip(ends, counts, strict=True):
        own = slice(end - chunks, end)
        gold = end - chunks + int(rng.integers(chunks))
        features[gold, *TELLING] += 4
        matters[own] = 0.002 * rng.random(chunks)
        matters[gold] = 2.0
        nothing = np.zeros((1, chunks), dtype=bool)
        random = draw_masks(int(chunks), 10, rng)
        drawn = np.concatenate([leave_one_out(int(chunks)), nothing, random])
        masks.append(drawn)
        effects.append(drawn @ matters[own] - 3 + 0.002 * rng.normal(size=len(drawn)))
    log_p = np.concatenate(effects)
    logits = log_p - np.log1p(-np.exp(log_p))
    collected = ShardAblations(
        examples=np.arange(count),
        left_out=np.zeros(3, dtype=np.int64),
        answer_bytes=np.zeros(count, dtype=np.int64),
        answers=np.zeros(0, dtype=np.uint8),
        counts=counts,
        mask_counts=np.array([len(own) for own in masks]),
        masks=np.concatenate([own.ravel() for own in masks]),
        token_counts=np.full(count, 3),
        token_logits=np.repeat(logits, 3).astype(np.float32),
        query_counts=np.full(count, 2),
        query_logits=np.repeat(logits, 2).astype(np.float32),
        log_mass=features,
        log_ratio=np.zeros_like(features),
    )
    sources = ["even" if number % 2 == 0 else "odd" for number in range(count)]
    return AblationSamples.of(collected, sources, matters > 1 if labels else None)


def candidate(objective: Objective, **changes: Any) -> AblationCandidate:
    spec = FeatureSpec("log_mass", ("together", "apart"))
    return dataclasses.replace(AblationCandidate(spec, LAYERS, 1e-2, objective), **changes)


def judge(samples: AblationSamples, *candidates: AblationCandidate) -> list[AblationResult]:
    count = len(samples.sources)
    folds = np.arange(count) % 5
    return list(cross_validate_ablations(samples, folds, candidates, np.ones(count)))


def test_samples_are_taken_apart_as_they_were_put_together() -> None:
    samples = make_samples(8)
    collected = samples.collected
    start = 0
    for masks, effects, chunks in zip(
        samples.masks, samples.effects, collected.counts, strict=True
    ):
        assert masks.shape == (len(effects), chunks)
        assert np.array_equal(masks[: chunks + 1], leave_one_out(int(chunks)))
        means = -np.log1p(np.exp(-effects)) / 3  # three tokens, equally likely
        expected = [means[0] - means[1 + place] for place in range(chunks)]
        own = slice(start, start + chunks)
        assert samples.drops[own] == pytest.approx(expected, abs=1e-5)
        assert samples.labels is not None
        assert np.argmax(samples.contributions[own]) == np.argmax(samples.labels[own])
        start += int(chunks)
    assert samples.labels is not None and np.array_equal(samples.mattered, samples.labels)
    unlabelled = dataclasses.replace(samples, labels=None)
    assert np.array_equal(unlabelled.mattered, samples.contributions >= LEAST_CONTRIBUTION)


@pytest.mark.parametrize("objective", ["contributions", "drops", "pearson", "evidence", "mixed"])
def test_what_matters_is_found_out_of_fold(objective: Objective) -> None:
    [result] = judge(make_samples(), candidate(objective))
    assert result.ndcg > 0.95 and set(result.by_source) == {"even", "odd"}
    assert result.faithfulness > (0.85 if objective == "pearson" else 0.7)
    assert result.ndcg == pytest.approx(np.mean(list(result.by_source.values())))
    if objective != "pearson":  # one chunk matters, which is what shares say
        assert result.share_faithfulness > 0.95
    blind = make_samples()
    blind.collected.log_mass[(slice(None), *TELLING)] = 0
    assert judge(blind, candidate(objective))[0].ndcg < 0.8


def test_a_design_without_the_telling_feature_is_worse() -> None:
    samples = make_samples()
    samples.collected.log_mass[:, [0, 1]] = samples.collected.log_mass[:, [1, 0]]  # now in pass 1
    together = FeatureSpec("log_mass", ("together",))
    whole, shallow, blind = judge(
        samples,
        candidate("drops"),
        candidate("drops", depth=1),
        candidate("drops", spec=together),
    )
    assert whole.ndcg > 0.95 > 0.8 > max(shallow.ndcg, blind.ndcg)


def test_faithfulness_is_scipys_correlation_over_random_masks() -> None:
    samples = make_samples(10)
    scores = np.random.default_rng(3).normal(size=int(samples.collected.counts.sum()))
    ends = np.cumsum(samples.collected.counts)
    for value, masks, effects, end in zip(
        faithfulness(samples, scores), samples.masks, samples.effects, ends, strict=True
    ):
        chunks = masks.shape[1]
        random = slice(chunks + 2, None)
        predicted = [sum(scores[end - chunks : end][mask]) for mask in masks[random]]
        assert value == pytest.approx(pearsonr(predicted, effects[random]).statistic)


def test_samples_that_say_nothing_are_not_numbers() -> None:
    samples = make_samples(4)
    flat = dataclasses.replace(samples, effects=tuple(0 * own for own in samples.effects))
    scores = np.arange(float(samples.collected.counts.sum()))
    assert np.isnan(faithfulness(flat, scores)).all()
    assert np.isnan(faithfulness(samples, 0 * scores)).all()


def test_objectives_over_labels_need_them() -> None:
    samples = make_samples(20, labels=False)
    for objective in ("evidence", "mixed"):
        with pytest.raises(InputError, match="needs gold labels"):
            judge(samples, candidate(objective))
    assert judge(samples, candidate("drops"))[0].ndcg > 0.9


def test_answers_that_no_chunk_changes_are_an_error() -> None:
    samples = make_samples(10)
    still = dataclasses.replace(samples, labels=None, contributions=0 * samples.contributions)
    with pytest.raises(InputError, match="of 10 samples none has a chunk that matters"):
        judge(still, candidate("pearson"))


def with_impostors(samples: AblationSamples) -> tuple[AblationSamples, Any]:
    """Make one chunk of each sample that isn't gold look like gold, and call its label a guess."""
    rng = np.random.default_rng(7)
    assert samples.labels is not None
    impostors = np.zeros(len(samples.labels), dtype=bool)
    for end, count in zip(
        np.cumsum(samples.collected.counts), samples.collected.counts, strict=True
    ):
        others = np.flatnonzero(~samples.labels[end - count : end]) + end - count
        impostors[rng.choice(others)] = True
    samples.collected.log_mass[impostors, *TELLING] += 6
    return dataclasses.replace(samples, unlabelled=impostors), impostors


@pytest.mark.parametrize("objective", ["evidence", "mixed"])
def test_chunks_whose_label_is_a_guess_are_neither_fitted_to_nor_judged(
    objective: Objective,
) -> None:
    samples, impostors = with_impostors(make_samples())
    design, collected = candidate(objective), samples.collected
    ones = np.ones(len(samples.sources))
    matrix = feature_matrix(collected, design.spec, design.depth)
    fit = samples.fit(matrix, design, ones > 0, ones)
    kept, counts = ~impostors, collected.counts - 1
    assert samples.labels is not None
    gold, told = samples.labels[kept].astype(float), np.maximum(samples.contributions[kept], 0)
    if objective == "mixed":
        sums = [own.sum() for own in np.split(told, np.cumsum(counts)[:-1])]
        gold = 0.7 * gold + 0.3 * told / np.repeat(sums, counts)
    expected = fit_listwise(ListwiseData(matrix[kept], gold, counts, ones), ridge=design.ridge)
    assert fit.weight == pytest.approx(expected.weight, rel=1e-4, abs=1e-6)
    [result] = judge(samples, design)
    assert result.ndcg > 0.95
    blind = dataclasses.replace(samples, unlabelled=None)
    assert judge(blind, design)[0].ndcg < 0.9


def test_labels_say_nothing_of_samples_that_are_all_gold() -> None:
    samples = make_samples()
    counts, ones = samples.collected.counts, np.ones(len(samples.sources))
    first = np.arange(len(ones)) < 10
    assert samples.labels is not None
    turned = dataclasses.replace(samples, labels=samples.labels | np.repeat(first, counts))
    for objective in ("evidence", "mixed"):
        design = candidate(objective)
        matrix = feature_matrix(samples.collected, design.spec, design.depth)
        fit = turned.fit(matrix, design, ones > 0, ones)
        told = np.maximum(samples.contributions, 0)
        sums = [own.sum() for own in np.split(told, np.cumsum(counts)[:-1])]
        told /= np.repeat(sums, counts)
        target, used = samples.labels.astype(float), ones > 0
        if objective == "evidence":
            used = ~first
        else:
            target = np.where(np.repeat(first, counts), told, 0.7 * target + 0.3 * told)
        data = ListwiseData(matrix, target, counts, ones).take(used)
        expected = fit_listwise(data, ridge=design.ridge)
        assert fit.weight == pytest.approx(expected.weight, rel=1e-3, abs=1e-5)


def test_samples_of_few_chunks_are_fitted_on_but_not_judged() -> None:
    samples = make_samples(fewest=2)
    counts, ones = samples.collected.counts, np.ones(60)
    folds, design = np.arange(60) % 5, candidate("contributions")
    matrix = feature_matrix(samples.collected, design.spec, design.depth)
    assert samples.labels is not None and (counts < 4).any()
    values: dict[str, list[float]] = {"even": [], "odd": []}
    for index, (end, count) in enumerate(zip(np.cumsum(counts), counts, strict=True)):
        if count < 4:
            continue
        fit = samples.fit(matrix, design, folds != index % 5, ones)
        scores = matrix[end - count : end] @ fit.weight
        gold = int(np.argmax(samples.labels[end - count : end]))  # the one there is
        values["odd" if index % 2 else "even"].append(
            1 / np.log2(2 + np.count_nonzero(scores > scores[gold]))
        )
    [result] = judge(samples, design)
    assert result.by_source == pytest.approx({name: np.mean(own) for name, own in values.items()})
    few = make_samples(200, fewest=2)
    flat = dataclasses.replace(
        few, labels=np.repeat(few.collected.counts < 4, few.collected.counts)
    )
    with pytest.raises(InputError, match="and 4 chunks or more; pass more examples"):
        judge(flat, design)
