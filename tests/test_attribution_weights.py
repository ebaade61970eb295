"""Which head weights `AT2Attributor` takes, loading, and sharing one between threads."""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from at2_rag import AT2Attributor, AT2Pruner
from at2_rag.errors import HeadWeightsMismatchError, HeadWeightsNotFoundError
from at2_rag.model.loading import LoadedModel
from tests.test_attribution import ANSWER, CHUNKS, QUERY, TOLERANCE, answer_weights, make
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def test_weights_of_the_other_rule_are_refused(model: Any) -> None:
    question = answer_weights(model, target_rule="question")
    with pytest.raises(HeadWeightsMismatchError, match=r"'question'.*AT2Attributor reads 'answer'"):
        make(model, question)
    result = make(model, question, allow_question_weights=True).attribute(QUERY, CHUNKS, ANSWER)
    assert result.chunks == make(model).attribute(QUERY, CHUNKS, ANSWER).chunks
    with pytest.raises(HeadWeightsMismatchError, match=r"'answer'.*AT2Pruner reads 'question'"):
        AT2Pruner(LoadedModel(model, tiny_tokenizer()), head_weights=answer_weights(model))


def test_weights_of_another_model_or_reading(model: Any) -> None:
    with pytest.raises(HeadWeightsMismatchError, match="another scoring model"):
        make(tiny_model(seed=1), answer_weights(model))
    apart = random_weights(model, tiny_tokenizer(), "apart")
    with pytest.raises(HeadWeightsMismatchError, match="reading 'independent'"):
        make(model, dataclasses.replace(apart, target_rule="answer"))


def test_without_weights_the_error_names_the_fix(model: Any) -> None:
    with pytest.raises(HeadWeightsNotFoundError) as error:
        AT2Attributor(LoadedModel(model, tiny_tokenizer()))
    for part in ("'answer'", "read_score_estimator", 'head_weights="uniform"'):
        assert part in str(error.value)


def test_loading_from_folders(model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AT2_RAG_CACHE", str(tmp_path / "cache"))
    model.save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    answer_weights(model).save(tmp_path / "weights")
    loaded = AT2Attributor.from_pretrained(
        tmp_path / "tiny", head_weights=tmp_path / "weights", dtype="float32", device="cpu"
    )
    expected = [chunk.score for chunk in make(model).attribute(QUERY, CHUNKS, ANSWER).chunks]
    scores = [chunk.score for chunk in loaded.attribute(QUERY, CHUNKS, ANSWER).chunks]
    assert scores == pytest.approx(expected, abs=TOLERANCE)


def test_threads_share_and_objects_stay_as_they_are(model: Any) -> None:
    attributor, chunks = make(model), copy.deepcopy(CHUNKS)
    answers = [ANSWER, "It spans the sea.", "Who?", ANSWER]
    alone = [attributor.cite(QUERY, chunks, answer) for answer in answers]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = list(
                pool.map(lambda answer: attributor.cite(QUERY, chunks, answer), answers)
            )
            for one, other in zip(alone, together, strict=True):
                assert one.text == other.text
    assert chunks == CHUNKS
    result = attributor.attribute(QUERY, chunks, ANSWER)
    assert all(scored.chunk is chunk for scored, chunk in zip(result.chunks, chunks, strict=True))
