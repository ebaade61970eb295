"""Texts of which the tokenizer leaves nothing: white space to some, other scripts to others."""

from __future__ import annotations

from typing import Any

import pytest

from at2_rag import AT2Attributor, AT2Pruner
from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from tests.tiny_models import dropping_tokenizer, tiny_model

QUERY = "who wrote Emma?"
FULL = "Jane Austen wrote Emma in 1815."
EMPTY = ["", " \n", "你好。"]
READINGS = pytest.mark.parametrize("options", [{}, {"chunk_cache": {}}, {"reading": "joint"}])


def make_pruner(**options: Any) -> AT2Pruner:
    return AT2Pruner(
        LoadedModel(tiny_model(), dropping_tokenizer()), head_weights="uniform", **options
    )


@READINGS
def test_chunks_and_sentences_without_tokens_have_no_attention(options: dict[str, Any]) -> None:
    pruner = make_pruner(**options)
    [alone] = [chunk.score for chunk in pruner.score(QUERY, [FULL])]
    assert alone > 0.01
    for chunks, expected in (
        ([""], [0.0]),
        (EMPTY, [0.0, 0.0, 0.0]),
        ([*EMPTY, FULL], [0.0, 0.0, 0.0, alone]),
    ):
        scores = [chunk.score for chunk in pruner.score(QUERY, chunks)]
        assert scores == pytest.approx(expected, abs=1e-6)
    assert [one.score for one in pruner.score_sentences(QUERY, ["", "你好。"])] == [0.0]
    first, last = pruner.score_sentences(QUERY, [f"{FULL} 你好。"])
    assert (first.text, last.text) == (FULL, "你好。")
    assert first.score > 0.01 and last.score == 0.0


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_a_question_without_tokens_is_refused(reading: Any) -> None:
    pruner = make_pruner(reading=reading)
    for call in (pruner.score, pruner.score_sentences):
        with pytest.raises(InputError, match="'你好吗' has no token.*use a model"):
            call("你好吗", [FULL])


def test_a_sentence_of_an_answer_without_tokens_has_no_sources() -> None:
    attributor = AT2Attributor(
        LoadedModel(tiny_model(), dropping_tokenizer()), head_weights="uniform"
    )
    one, empty, two = "Jane Austen wrote it.", "你好。", "It is a novel."
    cited = attributor.cite(QUERY, [FULL, "A river."], f"{one} {empty} {two}", max_sources=2)
    assert [sentence.text for sentence in cited.sentences] == [one, empty, two]
    assert [len(sentence.sources) for sentence in cited.sentences] == [2, 0, 2]
    for sentence in cited.sentences[::2]:
        span = sentence.start, sentence.end
        attribution = attributor.attribute(QUERY, [FULL, "A river."], cited.answer, span=span)
        total = sum(chunk.score for chunk in attribution.chunks)
        shares = [chunk.score / total for chunk in attribution.best_chunks]
        assert sentence.shares == pytest.approx(shares, abs=1e-6)
    for call in (attributor.cite, attributor.attribute):
        with pytest.raises(InputError, match="no token of the answer"):
            call(QUERY, [FULL], empty)
