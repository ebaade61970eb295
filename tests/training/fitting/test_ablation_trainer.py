"""Training on ablations end to end, on a tiny model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag import AT2Pruner
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import FeatureSpec
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import SHARD_TOKENS, AblationPlan, collect_ablations
from at2_rag.training.collection.shards import draw_samples, plan_shards
from at2_rag.training.fitting import ablation_validation
from at2_rag.training.fitting.ablation_trainer import AblationTraining, train_on_ablations
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import feature_matrix, source_weights
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.collection.test_features import make_examples

SPECS = [FeatureSpec("log_mass", ("together",)), FeatureSpec("log_ratio", ("together", "apart"))]


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A random model hardly heeds its chunks; and sums over many threads may differ in a bit."""
    monkeypatch.setattr(ablation_validation, "LEAST_CONTRIBUTION", 1e-3)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(folder: Path, examples: list[Example], **options: Any) -> AblationTraining:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    options = {
        "specs": SPECS,
        "folds": 3,
        "plan": AblationPlan(masks=6, answer_tokens=4),
        **options,
    }
    return train_on_ablations(
        ScoringModel(model, tokenizer, depth=2),
        AnswerModel(model, tokenizer),
        examples,
        folder,
        fingerprint="f",
        **options,
    )


def test_every_design_is_tried_and_the_best_is_fitted(tmp_path: Path) -> None:
    stages: dict[str, list[tuple[int, int]]] = {}
    training = train(
        tmp_path,
        make_examples("ab", each=6),
        depths=[1, 2],
        progress=lambda stage, *numbers: stages.setdefault(stage, []).append(numbers),
    )
    tried = [result.candidate for result in training.results]
    assert len(set(tried)) == len(tried) == 2 * 3 * 3 + 1
    assert {(design.objective, design.ridge) for design in tried[:-1]} == {
        (objective, ridge)
        for objective in ("contributions", "drops", "pearson")
        for ridge in (3e-3, 1e-2, 3e-2)
    }
    best = max(training.results[:-1], key=lambda result: result.ndcg).candidate
    assert tried[-1] == dataclasses.replace(best, depth=1)
    assert training.chosen.ndcg == max(result.ndcg for result in training.results)
    assert training.weights.layers == training.chosen.candidate.depth
    assert training.weights.spec == training.chosen.candidate.spec
    assert sum(training.samples.values()) <= 12 and set(training.samples) == {"a", "b"}
    for numbers in stages.values():
        assert numbers[-1][0] == numbers[-1][1]
    assert list(stages) == ["reading", "cross-validation", "learning curve", "fit"]
    assert [point.share for point in training.curve][-1] == 1.0
    full = training.curve[-1].figures
    assert full == {
        "ndcg_at_10": round(training.chosen.ndcg, 4),
        "faithfulness": round(training.chosen.faithfulness, 4),
    }
    assert training.importance.shape == training.weights.weight.shape


def test_the_weights_are_the_pruners(tmp_path: Path) -> None:
    weights = train(tmp_path, make_examples("ab", each=6)).weights
    unbound = dataclasses.replace(weights, fingerprint=None, template_hash=None)
    pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=unbound)
    example = make_examples("a", each=6)[5]
    scores = [scored.score for scored in pruner.score(example.query, example.chunks)]
    assert np.isfinite(scores).all() and len(set(scores)) > 1


def test_without_both_no_label_decides_anything(tmp_path: Path) -> None:
    examples = make_examples("ab", each=6)
    turned = [
        dataclasses.replace(example, labels=tuple(not label for label in example.labels))
        for example in examples
    ]
    plain, other = train(tmp_path / "plain", examples), train(tmp_path / "turned", turned)
    assert np.array_equal(plain.weights.weight, other.weights.weight)
    assert plain.results == other.results
    both = train(tmp_path / "both", examples, signal="both")
    turned_both = train(tmp_path / "turned both", turned, signal="both")
    assert {result.candidate.objective for result in both.results} == {
        "mixed",
        "evidence",
        "contributions",
    }
    assert not np.array_equal(both.weights.weight, turned_both.weights.weight)


def test_added_chunks_that_hold_an_answer_are_no_negatives_of_evidence(tmp_path: Path) -> None:
    examples = [
        dataclasses.replace(example, answers=("river",)) for example in make_examples("ab", each=6)
    ]
    training = train(
        tmp_path, examples, signal="both", objectives=["evidence"], specs=SPECS[:1], folds=2
    )
    collected = collect_ablations(
        ScoringModel(tiny_model(), tiny_tokenizer(), depth=2),
        AnswerModel(tiny_model(), tiny_tokenizer()),
        examples,
        tmp_path,
        fingerprint="f",
        seed=0,
        plan=AblationPlan(masks=6, answer_tokens=4),
    )
    shards = plan_shards(examples, shard_tokens=SHARD_TOKENS)
    drawn = {
        sample.example: sample
        for shard in shards
        for sample in draw_samples(examples, shard, seed=0, most_chunks=20, labelled=False)
    }
    samples = [drawn[int(index)] for index in collected.examples]
    kept = np.array(
        [
            place < sample.own or "river" not in chunk.text.split()
            for sample in samples
            for place, chunk in enumerate(sample.chunks)
        ]
    )
    assert 0 < kept.sum() < len(kept)
    matrix = feature_matrix(collected, SPECS[0], 2)
    ends = np.cumsum(collected.counts)
    counts = np.array(
        [kept[end - count : end].sum() for end, count in zip(ends, collected.counts, strict=True)]
    )
    labels = np.array([label for sample in samples for label in sample.labels])
    sources = source_weights([examples[int(index)].source for index in collected.examples])
    data = ListwiseData(matrix[kept], labels[kept], counts, sources)
    expected = fit_listwise(data, ridge=training.chosen.candidate.ridge)
    assert training.weights.weight.ravel() == pytest.approx(expected.weight, rel=1e-3, abs=1e-4)


def test_only_the_objectives_asked_for_are_tried(tmp_path: Path) -> None:
    examples = make_examples("ab", each=6)
    training = train(tmp_path, examples, objectives=["pearson"])
    assert {result.candidate.objective for result in training.results} == {"pearson"}
    assert training.weights.score_scale == "additive"
    listwise = train(tmp_path, examples, objectives=["contributions"])
    assert listwise.weights.score_scale == "logit"
    with pytest.raises(InputError, match="'ablation' has no objective 'mixed'; pass contributions"):
        train(tmp_path, examples, objectives=["mixed"])


def test_a_second_run_reads_nothing_and_gives_the_same(tmp_path: Path) -> None:
    examples = make_examples("ab", each=6)
    first = train(tmp_path, examples)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = train(tmp_path, examples)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    assert np.array_equal(first.weights.weight, second.weights.weight)


def test_refusals(tmp_path: Path) -> None:
    examples = make_examples("a")
    for depth in (0, 3):
        with pytest.raises(InputError, match=f"depth is {depth}; pass 1 to 2"):
            train(tmp_path / "depth", examples, depths=[depth])
    assert not (tmp_path / "depth").exists()
    with pytest.raises(InputError, match="cross-validation needs 50"):
        train(tmp_path / "folds", examples, folds=50)
    shared = [
        dataclasses.replace(one, chunks=examples[0].chunks[:1] + one.chunks[1:]) for one in examples
    ]
    with pytest.raises(InputError, match="has 1 groups .* gold passages, cross-validation needs 3"):
        train(tmp_path / "folds", shared, signal="both")
    assert not (tmp_path / "folds").exists()
