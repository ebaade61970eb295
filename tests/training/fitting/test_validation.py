"""Cross-validation: metrics by hand and by ir_measures, folds that don't leak, feature order."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import ir_measures
import numpy as np
import pytest
import torch
from ir_measures import nDCG

from at2_rag.errors import InputError
from at2_rag.reading.attention import SpanAttention
from at2_rag.reading.features import PASSES, FeatureSpec, Reading
from at2_rag.training.collection.store import ShardFeatures
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import (
    Candidate,
    CandidateResult,
    assign_folds,
    cross_validate,
    feature_matrix,
    feature_specs,
    ndcg_at_10,
    out_of_fold_scores,
    source_weights,
)

# --- nDCG ------------------------------------------------------------------------------------


def ndcg(scores: list[float], gold: set[int]) -> float:
    labels = np.array([place in gold for place in range(len(scores))])
    [value] = ndcg_at_10(np.array(scores), labels, np.array([len(scores)]))
    return float(value)


@pytest.mark.parametrize(
    ("ranks", "chunks", "expected"),
    [
        ([1], 4, 1.0),
        ([2], 4, 1 / math.log2(3)),
        ([3], 4, 1 / 2),
        ([7], 12, 1 / 3),
        ([11], 12, 0.0),
        ([1, 2], 5, 1.0),
        ([1, 3], 5, (1 + 1 / 2) / (1 + 1 / math.log2(3))),
        ([3, 7], 12, (1 / 2 + 1 / 3) / (1 + 1 / math.log2(3))),
        ([2, 11], 12, (1 / math.log2(3)) / (1 + 1 / math.log2(3))),
        (list(range(1, 13)), 12, 1.0),
        (
            list(range(3, 15)),
            14,
            1 - (1 + 1 / math.log2(3)) / sum(1 / math.log2(i) for i in range(2, 12)),
        ),
    ],
)
def test_ndcg_on_fractions_worked_out_by_hand(
    ranks: list[int], chunks: int, expected: float
) -> None:
    order = np.random.default_rng(0).permutation(chunks)
    scores = [0.0] * chunks
    for rank, place in enumerate(order, start=1):
        scores[place] = -float(rank)
    gold = {int(order[rank - 1]) for rank in ranks}
    assert ndcg(scores, gold) == pytest.approx(expected)


def test_ties_are_ranked_as_they_stand() -> None:
    assert ndcg([1.0, 1.0, 1.0], {0}) == 1.0
    assert ndcg([1.0, 1.0, 1.0], {2}) == pytest.approx(1 / 2)


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


# --- folds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_keep_groups_together_and_are_about_equally_large(folds: int) -> None:
    rng = np.random.default_rng(0)
    groups = [7] * 30 + [int(group) for group in rng.integers(100, 160, 270)]
    fold_of = assign_folds(groups, folds, np.random.default_rng(3))
    assert set(fold_of.tolist()) == set(range(folds))
    for group in set(groups):
        assert len({fold for fold, own in zip(fold_of, groups, strict=True) if own == group}) == 1
    sizes = np.bincount(fold_of, minlength=folds)
    assert sizes.max() - sizes.min() <= max(np.bincount(groups)[100:])


def test_folds_are_drawn_from_the_generator_given() -> None:
    groups = list(range(50))
    first = assign_folds(groups, 5, np.random.default_rng(0))
    assert np.array_equal(first, assign_folds(groups, 5, np.random.default_rng(0)))
    assert not np.array_equal(first, assign_folds(groups, 5, np.random.default_rng(1)))


def make_data(samples: int = 60, chunks: int = 5, features: int = 3, seed: int = 0) -> ListwiseData:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(samples * chunks, features)).astype(np.float32)
    labels = np.tile([True] + [False] * (chunks - 1), samples)
    counts = np.full(samples, chunks)
    return ListwiseData(matrix, labels, counts, np.ones(samples))


def with_leak(data: ListwiseData) -> ListwiseData:
    """A feature a sample that marks its gold chunk and is nothing for all other samples."""
    samples, rows = len(data.counts), len(data.labels)
    leak = np.zeros((rows, samples), dtype=np.float32)
    owner = np.repeat(np.arange(samples), data.counts)
    leak[np.arange(rows), owner] = data.labels
    return ListwiseData(np.hstack([data.features, leak]), data.labels, data.counts, data.weights)


def test_a_planted_leak_helps_in_the_sample_and_not_out_of_fold() -> None:
    data = with_leak(make_data())
    fold_of = np.arange(60) % 5
    seen = fit_listwise(data, ridge=1e-4)
    inside = data.features @ seen.weight
    assert ndcg_at_10(inside, data.labels, data.counts).min() == 1.0
    outside = ndcg_at_10(out_of_fold_scores(data, fold_of, ridge=1e-4), data.labels, data.counts)
    chance = float(np.mean(1 / np.log2(np.arange(2, 7))))
    assert outside.mean() == pytest.approx(chance, abs=0.12)


def test_a_folds_scores_do_not_see_its_labels() -> None:
    data, fold_of = make_data(), np.arange(60) % 3
    before = out_of_fold_scores(data, fold_of, ridge=1e-2)
    own = np.repeat(fold_of == 1, data.counts)
    labels = data.labels.copy()
    labels[own] = np.tile([False, False, False, False, True], 20)
    changed = ListwiseData(data.features, labels, data.counts, data.weights)
    after = out_of_fold_scores(changed, fold_of, ridge=1e-2)
    assert np.array_equal(before[own], after[own])
    assert not np.isclose(before[~own], after[~own]).any()


def test_out_of_fold_scores_are_those_of_a_fit_without_the_fold() -> None:
    data, fold_of = make_data(), np.random.default_rng(1).integers(0, 4, 60)
    scores = out_of_fold_scores(data, fold_of, ridge=1e-2)
    for fold in range(4):
        fit = fit_listwise(data.take(fold_of != fold), ridge=1e-2)
        rows = np.repeat(fold_of == fold, data.counts)
        assert scores[rows] == pytest.approx(data.features[rows] @ fit.weight + fit.bias)


def test_every_source_weighs_the_same() -> None:
    sources = ["a"] * 10 + ["b"] * 2 + ["a"] * 8
    weights = source_weights(sources)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[:10].sum() + weights[12:].sum() == pytest.approx(0.5)
    assert len(set(weights[10:12])) == 1 and weights[10:12].sum() == pytest.approx(0.5)


# --- features --------------------------------------------------------------------------------


def make_collected(reading: Reading, layers: int = 4, heads: int = 3) -> tuple[Any, ShardFeatures]:
    """Attention of 7 chunks, each number another, and the same as it is stored."""
    rng = np.random.default_rng(0)
    attention = {
        name: SpanAttention(
            mass=torch.tensor(rng.uniform(0.01, 0.5, (layers, heads, 7)), dtype=torch.float32),
            log_ratio=torch.tensor(rng.normal(size=(layers, heads, 7)), dtype=torch.float32),
        )
        for name in PASSES[reading]
    }

    def stored(values: list[torch.Tensor]) -> Any:
        array = np.zeros((7, len(values), layers, heads), dtype=np.float16)
        for (chunk, number, layer, head), _ in np.ndenumerate(array):
            array[chunk, number, layer, head] = values[number][layer, head, chunk]
        return array

    return attention, ShardFeatures(
        examples=np.array([0, 1]),
        counts=np.array([4, 3]),
        labels=np.array([True, False] * 3 + [True]),
        log_mass=stored([a.mass.log() for a in attention.values()]),
        log_ratio=stored([a.log_ratio for a in attention.values()]),
    )


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize(
    ("reading", "spec"),
    [
        *((reading, spec) for reading in PASSES for spec in feature_specs(reading)),
        ("independent", FeatureSpec("log_ratio", ("apart", "together"))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.quantity}:{value.passes}",
)
def test_the_matrix_is_in_the_order_of_the_features_at_inference(
    reading: Reading, spec: FeatureSpec, depth: int
) -> None:
    attention, collected = make_collected(reading)
    cut = {
        name: SpanAttention(one.mass[:depth], one.log_ratio[:depth])
        for name, one in attention.items()
    }
    expected = spec.extract(cut).numpy()
    matrix = feature_matrix(collected, spec, depth)
    assert matrix.shape == (7, len(spec.passes) * depth * 3) == expected.shape
    assert matrix.dtype == np.float32
    assert matrix == pytest.approx(expected, rel=3e-3, abs=1e-3)


def test_every_combination_of_quantity_and_passes_is_tried() -> None:
    tried = {(spec.quantity, spec.passes) for spec in feature_specs("independent")}
    passes = [("together",), ("apart",), ("together", "apart")]
    quantities = ("mass", "log_mass", "log_ratio")
    assert tried == {(quantity, some) for quantity in quantities for some in passes}
    assert {spec.passes for spec in feature_specs("joint")} == {("joint",)}
    assert len(feature_specs("joint")) == 3


def test_results_are_macro_means_over_sources_of_the_items_that_count() -> None:
    rng = np.random.default_rng(5)
    counts = np.array([5, 3, 6, 4, 5, 2, 8, 4, 6, 5, 7, 4] * 3)
    sources = ["a", "b", "a"] * 12
    labels = np.concatenate([[True] + [False] * (count - 1) for count in counts])
    shape = (counts.sum(), 2, 2, 2)
    log_ratio = (rng.normal(size=shape) + 0.5 * labels[:, None, None, None]).astype(np.float16)
    collected = ShardFeatures(np.arange(36), counts, labels, log_ratio, log_ratio)
    folds = np.arange(36) % 4
    candidates = [
        Candidate(FeatureSpec("log_ratio", ("together",)), 1, 1e-2),
        Candidate(FeatureSpec("log_ratio", ("together",)), 1, 1.0),
        Candidate(FeatureSpec("log_ratio", ("apart", "together")), 2, 1e-2),
    ]
    results = list(cross_validate(collected, sources, folds, candidates))
    assert [result.candidate for result in results] == candidates
    for result in results:
        design = result.candidate
        matrix = feature_matrix(collected, design.spec, design.depth)
        data = ListwiseData(matrix, labels, counts, source_weights(sources))
        scores = out_of_fold_scores(data, folds, ridge=design.ridge)
        quality = ndcg_at_10(scores, labels, counts)
        means = {}
        for name in ("a", "b"):
            chosen = [
                quality[place]
                for place in range(36)
                if sources[place] == name and counts[place] >= 4
            ]
            means[name] = sum(chosen) / len(chosen)
        assert dict(result.by_source) == pytest.approx(means)
        assert result.ndcg == pytest.approx((means["a"] + means["b"]) / 2)
    assert results[2].ndcg != results[0].ndcg


def make_short(counts: list[int]) -> ShardFeatures:
    """Samples of these sizes, the first chunk of each gold."""
    labels = np.concatenate([[True] + [False] * (count - 1) for count in counts])
    stored = np.random.default_rng(0).normal(size=(len(labels), 2, 1, 1)).astype(np.float16)
    return ShardFeatures(np.arange(len(counts)), np.array(counts), labels, stored, stored)


TWO = [Candidate(FeatureSpec("log_ratio", ("apart",)), 1, ridge) for ridge in (1e-2, 1.0)]


def test_samples_too_short_to_judge_are_refused_instead_of_giving_nan() -> None:
    collected, folds = make_short([2, 3, 3, 2]), np.array([0, 1, 0, 1])
    with pytest.raises(InputError, match=r"none of the 4 samples has 4 chunks .*largest has 3\)"):
        list(cross_validate(collected, ["a", "a", "b", "b"], folds, TWO))


def test_a_source_that_drops_out_is_named(caplog: pytest.LogCaptureFixture) -> None:
    collected, folds = make_short([2, 4, 3, 3, 2, 5]), np.arange(6) % 2
    sources = ["a", "b", "c", "a", "c", "b"]
    with caplog.at_level(logging.WARNING, logger="at2_rag"):
        results = list(cross_validate(collected, sources, folds, TWO))
    [record] = caplog.records
    assert record.name == "at2_rag.training.fitting.validation"
    assert "leaves out 'a' (2 samples), 'c' (2 samples)" in record.getMessage()
    assert [set(result.by_source) for result in results] == [{"b"}, {"b"}]
    caplog.clear()
    list(cross_validate(make_short([4, 3, 5, 2]), ["a", "a", "b", "b"], folds[:4], TWO))
    assert not caplog.records


def test_a_candidate_may_depend_on_the_results_before_it() -> None:
    collected = make_short([4, 5, 4, 6])
    results: list[CandidateResult] = []

    def candidates() -> Iterator[Candidate]:
        yield from TWO
        best = max(results, key=lambda result: result.ndcg).candidate
        yield Candidate(FeatureSpec("mass", ("together",)), 1, best.ridge)

    for result in cross_validate(collected, ["a"] * 4, np.array([0, 1, 0, 1]), candidates()):
        results.append(result)
    best = max(results[:2], key=lambda result: result.ndcg)
    assert results[2].candidate.ridge == best.candidate.ridge
