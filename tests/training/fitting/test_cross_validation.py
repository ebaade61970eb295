"""Cross-validation: metrics by hand and by ir_measures, folds that don't leak."""

from __future__ import annotations

import dataclasses
import logging

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG
from scipy.stats import pearsonr

from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec
from at2_rag.training.fitting.cross_validation import (
    Candidate,
    CrossValidation,
    assign_folds,
    faithfulness,
    ndcg_at_10,
)
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from tests.training.fitting.small_samples import labelled_samples, planted_samples

APART = Candidate(FeatureSpec("log", ("apart",)), 1, 1e-2, "evidence")
BOTH = Candidate(FeatureSpec("log", ("apart", "together")), 2, 1e-2, "evidence")


@pytest.mark.parametrize(("gold", "expected"), [(0, 1.0), (2, 1 / 2)])
def test_ties_are_ranked_as_they_stand(gold: int, expected: float) -> None:
    value = ndcg_at_10(np.ones(3), np.arange(3) == gold, np.array([3]))
    assert value.tolist() == pytest.approx([expected])


def test_ndcg_agrees_with_ir_measures() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(2, 30, 100)
    scores, labels = rng.normal(size=counts.sum()), rng.random(counts.sum()) < 0.3
    labels[np.concatenate([[0], np.cumsum(counts)[:-1]])] = True
    qrels: dict[str, dict[str, int]] = {}
    runs: dict[str, dict[str, float]] = {}
    ends = np.cumsum(counts)
    for sample, (count, end) in enumerate(zip(counts, ends, strict=True)):
        rows = range(end - count, end)
        qrels[str(sample)] = {str(row): int(labels[row]) for row in rows}
        runs[str(sample)] = {str(row): float(scores[row]) for row in rows}
    theirs = {m.query_id: m.value for m in ir_measures.iter_calc([nDCG @ 10], qrels, runs)}
    ours = ndcg_at_10(scores, labels, counts)
    assert ours.tolist() == pytest.approx([theirs[str(sample)] for sample in range(100)])


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_keep_groups_together_and_are_about_equally_large(folds: int) -> None:
    rng = np.random.default_rng(0)
    groups = [7] * 30 + [int(group) for group in rng.integers(100, 160, 270)]
    fold_of = assign_folds(groups, folds, np.random.default_rng(3))
    assert set(fold_of.tolist()) == set(range(folds))
    for group in set(groups):
        assert len(set(fold_of[np.array(groups) == group].tolist())) == 1
    sizes = np.bincount(fold_of, minlength=folds)
    assert sizes.max() - sizes.min() <= max(np.bincount(groups)[100:])
    assert np.array_equal(fold_of, assign_folds(groups, folds, np.random.default_rng(3)))
    assert not np.array_equal(fold_of, assign_folds(groups, folds, np.random.default_rng(1)))


def test_figures_are_macro_means_of_fits_without_the_fold() -> None:
    counts = [5, 3, 6, 4, 5, 2, 8, 4, 6, 5, 7, 4] * 3
    sources, fold_of = ["a", "b", "a"] * 12, np.random.default_rng(1).integers(0, 4, 36)
    samples = labelled_samples(counts, sources)
    validation, labels = CrossValidation(samples, fold_of), samples.labels
    assert labels is not None
    results = []
    for design in (APART, dataclasses.replace(APART, ridge=1.0), BOTH):
        matrix = samples.features.matrix(design.spec, design.depth)
        data = ListwiseData(matrix, labels, samples.counts)
        scores = np.zeros(len(labels))
        for fold in range(4):
            fit = fit_listwise(data.take(fold_of != fold), ridge=design.ridge)
            rows = np.repeat(fold_of == fold, counts)
            scores[rows] = matrix[rows] @ fit.weight + fit.bias
        assert validation.scores(design) == pytest.approx(scores)
        quality = ndcg_at_10(scores, labels, samples.counts)
        result = validation.judge(design)
        judged = np.array(counts) >= 4
        means = {name: quality[judged & (np.array(sources) == name)].mean() for name in "ab"}
        assert dict(result.by_source) == pytest.approx(means)
        assert result.ndcg == pytest.approx((means["a"] + means["b"]) / 2)
        assert np.array_equal(np.isnan(result.quality), ~judged)
        assert result.faithfulness is None and result.faithfulness_by_source == {}
        results.append(result.ndcg)
    assert results[2] != results[0]


def test_samples_too_short_to_judge_are_refused_instead_of_giving_nan() -> None:
    short = labelled_samples([2, 3, 3, 2], ["a", "a", "b", "b"])
    message = r"none of the 4 samples has 4 chunks or more \(the largest has 3\), some of them rel"
    with pytest.raises(InputError, match=message):
        CrossValidation(short, np.array([0, 1, 0, 1]))


def test_a_source_that_drops_out_is_named(caplog: pytest.LogCaptureFixture) -> None:
    samples = labelled_samples([2, 4, 3, 3, 2, 5], ["a", "b", "c", "a", "c", "b"])
    with caplog.at_level(logging.WARNING, logger="at2_rag"):
        validation = CrossValidation(samples, np.arange(6) % 2)
    [record] = caplog.records
    assert "leaves out 'a' (2 samples), 'c' (2 samples)" in record.getMessage()
    assert set(validation.judge(APART).by_source) == {"b"}


def test_faithfulness_is_scipys_correlation_over_random_masks() -> None:
    samples = planted_samples(10)
    assert samples.effects is not None
    scores = np.random.default_rng(3).normal(size=int(samples.counts.sum()))
    values = faithfulness(samples.effects, scores, samples.counts)
    for value, masks, effects, of_chunks in zip(
        values,
        samples.effects.masks,
        samples.effects.likelihoods,
        samples.features.by_sample(scores),
        strict=True,
    ):
        random = slice(len(of_chunks) + 2, None)
        predicted = [sum(of_chunks[mask]) for mask in masks[random]]
        assert value == pytest.approx(pearsonr(predicted, effects[random]).statistic)
    flat = tuple(0 * one for one in samples.effects.likelihoods)
    still = dataclasses.replace(samples.effects, likelihoods=flat)
    assert np.isnan(faithfulness(still, scores, samples.counts)).all()
    assert np.isnan(faithfulness(samples.effects, 0 * scores, samples.counts)).all()
