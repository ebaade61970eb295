"""Calibrating head weights of a tiny model, and pruning with what was learned."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner, HeadWeights
from at2_rag.data.examples import Example
from at2_rag.errors import HeadWeightsMismatchError, InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.training.calibrating.calibrator import Calibrator
from at2_rag.training.calibrating.examples import choose_examples, choose_judged
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights
from tests.training.calibrating.equal_examples import equal_examples

SOURCES = ("novels", "seas")


@pytest.fixture(autouse=True)
def any_drop_is_relevant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model's answers hardly depend on the chunks."""
    monkeypatch.setattr("at2_rag.training.calibrating.samples.RELEVANT_DROP", 0.0)


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")


def tiny() -> LoadedModel:
    return LoadedModel(tiny_model(), tiny_tokenizer())


def calibrator(weights: HeadWeights, folder: Path, **options: Any) -> Calibrator:
    return Calibrator(tiny(), weights, folder, workers=1, **options)


def pruner(weights: HeadWeights) -> AT2Pruner:
    return AT2Pruner(tiny(), head_weights=weights)


def examples(**kind: bool) -> list[Example]:
    return [example for source in SOURCES for example in equal_examples(source, **kind)]


@pytest.mark.parametrize("outcome", ["evidence", "removal"])
def test_calibrated_weights_give_probabilities_and_nothing_is_read_twice(
    weights: HeadWeights, tmp_path: Path, outcome: Any
) -> None:
    chosen = choose_examples(examples(), limit=12)
    fitted = calibrator(weights, tmp_path, outcome=outcome).fit(chosen)
    assert np.array_equal(fitted.weight, weights.weight) and fitted.prior_weight is None
    assert fitted.calibration is not None and fitted.calibration.outcome == outcome
    example = chosen.chosen[0]
    result = pruner(fitted).prune(example.query, example.chunks)
    assert result.answerable is not None and 0 < result.answerable < 1
    assert all(chunk.probability is not None for chunk in (*result.kept, *result.dropped))
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    kinds = {"examples", "twins", *(["drops"] if outcome == "removal" else [])}
    assert {path.parent.name for path in shards} == kinds
    again = calibrator(weights, tmp_path, outcome=outcome).fit(chosen)
    assert shards == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert again.calibration is not None
    assert again.calibration.numbers() == fitted.calibration.numbers()


def test_further_examples_are_judged_and_nothing_is_fitted_to_them(
    weights: HeadWeights, tmp_path: Path
) -> None:
    chosen = choose_examples(examples())
    calibrates = calibrator(weights, tmp_path)
    with pytest.raises(InputError, match="call fit before study"):
        calibrates.study()
    calibrates.fit(chosen)
    plain = calibrates.study()
    further = choose_judged(equal_examples("seas", 20)[14:], sources=SOURCES)
    study = calibrates.study(further)
    assert [row.source for row in study.probabilities] == [*SOURCES, "every source"]
    assert [(row.source, row.split, row.calls) for row in study.transfer] == [
        ("novels", "fitted", 14),
        ("seas", "fitted", 14),
        ("seas", "judged", 6),
    ]
    assert plain.transfer == study.transfer[:2] and plain.multi_hop == []
    of_one = calibrator(weights, tmp_path / "one")
    of_one.fit(choose_examples(equal_examples("seas")))
    alone = of_one.study()
    assert not alone.probabilities and not alone.transfer


def test_multi_hop_and_sentence_weights_are_learned_and_kept(
    weights: HeadWeights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = choose_examples(examples(two_gold=True, sentences=True), sentences=True)
    calibrates = calibrator(weights, tmp_path, multi_hop=True, sentences=True)
    fitted = calibrates.fit(chosen)
    assert [(row.source, row.calls) for row in calibrates.study().multi_hop] == [
        ("novels", 14),
        ("seas", 14),
        ("every source", 28),
    ]
    assert fitted.multi_hop is not None and fitted.sentences is not None
    assert fitted.sentences.score[0] != fitted.sentences.score[1]  # both readings count
    query, chunks = chosen.chosen[0].query, chosen.chosen[0].chunks
    once = pruner(fitted).prune(query, chunks, top_k=3)
    twice = pruner(fitted).prune(query, chunks, top_k=3, multi_hop=True)
    assert twice.kept[0].index == once.kept[0].index
    assert [one.score for one in once.kept] != [one.score for one in twice.kept]
    assert pruner(fitted).prune(query, chunks, unit="sentence").kept
    with caplog.at_level(logging.WARNING):
        kept = calibrator(fitted, tmp_path).fit(chosen)
    assert (kept.sentences, kept.multi_hop) == (fitted.sentences, fitted.multi_hop)
    assert "multi-hop and sentences weights of an earlier calibration are kept" in caplog.text


def test_weights_of_retrieval_scores_are_learned_and_kept(
    weights: HeadWeights, tmp_path: Path
) -> None:
    scored = []
    for example in examples():
        pairs = zip(example.chunks, example.labels, strict=True)
        chunks = (
            replace(chunk, retrieval_score=0.5 * gold - 1e-3 * len(chunk.text))
            for chunk, gold in pairs
        )
        scored.append(replace(example, chunks=tuple(chunks)))
    chosen = choose_examples(scored, limit=12)
    by_rank = calibrator(weights, tmp_path).fit(chosen)
    assert by_rank.prior_weight is not None and by_rank.prior_weight > 0
    assert by_rank.cosine_weight is None
    both = calibrator(by_rank, tmp_path, priors=["cosine"]).fit(chosen)
    assert both.prior_weight == by_rank.prior_weight
    assert both.cosine_weight is not None and both.cosine_weight > 0


def test_weights_that_can_not_be_calibrated_are_refused(
    weights: HeadWeights, tmp_path: Path
) -> None:
    joint = random_weights(tiny_model(), tiny_tokenizer(), "joint")
    for changed, options, message in (
        (joint, {"multi_hop": True}, "for head weights of joint reading"),
        (replace(weights, score_scale="additive"), {}, "only logits can be calibrated"),
    ):
        with pytest.raises(InputError, match=message):
            calibrator(changed, tmp_path, **options)
    with pytest.raises(HeadWeightsMismatchError):
        calibrator(replace(weights, fingerprint="0" * 64), tmp_path)
