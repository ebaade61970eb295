"""Calibrating head weights of a tiny model, and pruning with what was learned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner, ChunkCache, HeadWeights, LoadedModel
from at2_rag.errors import HeadWeightsMismatchError, InputError
from at2_rag.training.calibrating import calibrator
from at2_rag.training.calibrating.examples import CalibrationExamples, choose_examples
from at2_rag.training.calibrating.samples import SampleReader
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights
from tests.training.calibrating.equal_examples import equal_examples

MODEL = LoadedModel(tiny_model(), tiny_tokenizer())
WEIGHTS = random_weights(MODEL.model, MODEL.tokenizer, "together", "apart")
EXAMPLES = choose_examples([*equal_examples("novels"), *equal_examples("seas")])


def calibrate(weights: HeadWeights, folder: Path, **options: Any) -> HeadWeights:
    reader = SampleReader(MODEL, weights, folder, workers=1)
    return calibrator.calibrate(reader, EXAMPLES, **options).weights


def test_calibrated_weights_give_probabilities_and_nothing_is_read_twice(tmp_path: Path) -> None:
    fitted = calibrate(WEIGHTS, tmp_path)
    assert np.array_equal(fitted.weight, WEIGHTS.weight)
    assert fitted.calibration is not None
    example = EXAMPLES.chosen[0]
    result = AT2Pruner(MODEL, head_weights=fitted).prune(example.query, example.chunks)
    assert result.answerable is not None and 0 < result.answerable < 1
    assert all(chunk.probability is not None for chunk in (*result.kept, *result.dropped))
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert {path.parent.name for path in shards} == {"lists"}
    again = calibrate(WEIGHTS, tmp_path)
    assert shards == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert again.calibration is not None
    assert again.calibration.numbers() == fitted.calibration.numbers()


def test_a_calibration_is_adapted_to_other_questions(tmp_path: Path) -> None:
    fitted = calibrate(WEIGHTS, tmp_path / "first")
    others = choose_examples(equal_examples("towns"))
    reader = SampleReader(MODEL, fitted, tmp_path / "second", workers=1)
    adapted = calibrator.calibrate(reader, others).weights
    assert fitted.calibration and adapted.calibration
    before, after = fitted.calibration, adapted.calibration
    assert np.array_equal(before.evidence_weight, after.evidence_weight)
    assert before.numbers() != after.numbers()


def rewritten(write: Callable[[str], str]) -> CalibrationExamples:
    """Return examples of words that the tokenizer knows, written in some way."""
    words = dict(
        zip(
            "abcdefgh",
            "tower harbour question passages answer below only using".split(),
            strict=True,
        )
    )

    def in_words(text: str) -> str:
        return write(" ".join(words.get(word, word) for word in text.split(" ")))

    return choose_examples(
        [
            replace(
                example,
                query=in_words(example.query),
                chunks=tuple(replace(one, text=in_words(one.text)) for one in example.chunks),
                answers=tuple(map(in_words, example.answers)),
            )
            for example in equal_examples("novels")
        ]
    )


def test_weights_calibrated_in_a_language_hold_for_it(tmp_path: Path) -> None:
    """Though the tokenizer writes its letters byte by byte."""
    letters = str.maketrans({chr(ord("a") + i): chr(ord("ა") + i) for i in range(26)})
    georgian = rewritten(lambda text: text.lower().translate(letters))
    fitted = {}
    for name, examples in {"georgian": georgian, "english": rewritten(str)}.items():
        reader = SampleReader(MODEL, WEIGHTS, tmp_path / name, workers=1)
        calibrator.calibrate(reader, examples).weights.save(tmp_path / name / "weights")
        fitted[name] = HeadWeights.load(tmp_path / name / "weights")
    known = {name: weights.calibration for name, weights in fitted.items()}
    assert known["georgian"] and known["georgian"].unread > 0.9
    assert known["english"] and known["english"].unread < 0.1
    query, chunks = georgian.chosen[0].query, georgian.chosen[0].chunks
    for name, weights in fitted.items():
        result = AT2Pruner(MODEL, head_weights=weights).prune(query, chunks, top_k=6)
        alike = len({chunk.probability for chunk in result.kept}) == 1
        assert alike == ("hardly reads" in " ".join(result.notes)) == (name == "english")


def test_multi_hop_and_sentence_weights_are_learned_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = calibrate(WEIGHTS, tmp_path, multi_hop=True, sentences=True)
    assert fitted.multi_hop is not None and fitted.sentences is not None
    assert fitted.sentences.score[0] != fitted.sentences.score[1]  # both readings count
    query, chunks = EXAMPLES.chosen[0].query, EXAMPLES.chosen[0].chunks
    pruner = AT2Pruner(MODEL, head_weights=fitted)
    once = pruner.prune(query, chunks, top_k=3)
    twice = pruner.prune(query, chunks, top_k=3, multi_hop=True)
    assert twice.kept[0].index == once.kept[0].index
    assert [one.score for one in once.kept] != [one.score for one in twice.kept]
    assert pruner.prune(query, chunks, unit="sentence").kept
    with caplog.at_level(logging.WARNING):
        kept = calibrate(fitted, tmp_path)
    assert (kept.sentences, kept.multi_hop) == (fitted.sentences, fitted.multi_hop)
    assert "multi-hop and sentences weights of an earlier calibration are kept" in caplog.text


def test_chunks_that_are_kept_are_read_once_and_change_nothing(tmp_path: Path) -> None:
    weights = random_weights(MODEL.model, MODEL.tokenizer, "late")
    options: dict[str, Any] = {"sentences": True}
    fitted = calibrate(weights, tmp_path / "plain", **options)
    cache = ChunkCache()
    reader = SampleReader(MODEL, weights, tmp_path / "kept", workers=1, store=cache)
    kept = calibrator.calibrate(reader, EXAMPLES, **options).weights
    assert kept.calibration and fitted.calibration
    assert kept.sentences and fitted.sentences
    for of_kept, expected in (
        (kept.calibration.numbers(), fitted.calibration.numbers()),
        (kept.sentences.numbers(), fitted.sentences.numbers()),
    ):
        for name, numbers in expected.items():  # equal but for rounding
            assert of_kept[name] == pytest.approx(numbers, rel=1e-6)
    read = [one.example for one in EXAMPLES.lists]
    chunks = {chunk.rendered for example in read for chunk in example.chunks}
    assert cache.counts.misses == len(cache) == len(chunks)


def test_weights_of_retrieval_scores_are_learned_and_kept(tmp_path: Path) -> None:
    by_rank = calibrate(WEIGHTS, tmp_path)
    assert by_rank.prior_weight is not None and by_rank.prior_weight > 0
    assert by_rank.cosine_weight is None
    both = calibrate(by_rank, tmp_path, priors=["cosine"])
    assert both.prior_weight == by_rank.prior_weight
    assert both.cosine_weight is not None and both.cosine_weight > 0


def test_weights_that_can_not_be_calibrated_are_refused(tmp_path: Path) -> None:
    joint = random_weights(MODEL.model, MODEL.tokenizer, "joint")
    late = random_weights(MODEL.model, MODEL.tokenizer, "late")
    for weights in (joint, late):
        with pytest.raises(InputError, match="a question is read again by the pass 'together'"):
            calibrate(weights, tmp_path, multi_hop=True)
    with pytest.raises(InputError, match="only logits can be calibrated"):
        calibrate(replace(WEIGHTS, score_scale="additive"), tmp_path)
    with pytest.raises(HeadWeightsMismatchError):
        calibrate(replace(WEIGHTS, fingerprint="0" * 64), tmp_path)
