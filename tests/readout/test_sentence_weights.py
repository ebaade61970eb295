"""Sentence weights: what they make of the scores of chunks and sentences, by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import Chunk, PruneResult
from at2_rag.errors import HeadWeightsError
from at2_rag.readout.calibration import Calibration, chunk_terms, logistic
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import MultiHop
from at2_rag.readout.scores import ChunkScores
from at2_rag.readout.sentence_weights import SentenceWeights
from at2_rag.text.units import unit_spans
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import change_description, random_weights, tiny_pruner

QUERY = "where was the author of Emma born?"
CHUNKS = [
    Chunk(
        "Jane Austen wrote the novel Emma. Books were sold in three volumes. "
        "Most owls sleep through the day.",
        "Emma",
    ),
    Chunk("The river flows through the old town."),
    Chunk("Steventon is where Jane Austen was born. Most houses in there are small.", "Steventon"),
    Chunk("Boats pass below the old bridge. Nobody who lives here counts them.", "The bridge"),
]
SENTENCES = SentenceWeights((1.5, -0.5, 0.75), (0.1, 0.8, -0.4, 1.0))


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    plain = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")
    second = np.random.default_rng(5).normal(size=plain.weight.shape[1:]).astype(np.float32)
    return dataclasses.replace(
        plain,
        multi_hop=MultiHop(second, 0.5, (0.2, 0.7, 0.3)),
        calibration=Calibration(
            -plain.weight,
            0.25,
            (0.3, 0.9, -0.2, 1.0),
            (0.1, 0.2, 0.2, 0.1, 1.5),
            unread=1.0,  # the tiny tokenizer knows few words
        ),
        sentences=SENTENCES,
    )


def by_hand(weights: HeadWeights, multi_hop: bool) -> tuple[Any, Any]:
    """Return sentences' scores and probabilities, from the scores of chunks and sentences."""
    plain = tiny_pruner(dataclasses.replace(weights, sentences=None))
    first = [chunk.score for chunk in plain.score(QUERY, CHUNKS)]
    result = plain.prune(QUERY, CHUNKS, top_k=9, multi_hop=multi_hop, order="original")
    last = [chunk.score for chunk in result.kept]
    owners = [index for index, _, _ in unit_spans(CHUNKS)]
    sentences = [sentence.score for sentence in plain.score_sentences(QUERY, CHUNKS)]
    scores = [
        1.5 * last[chunk] - 0.5 * first[chunk] + 0.75 * score
        for chunk, score in zip(owners, sentences, strict=True)
    ]
    total = math.log(math.fsum(map(math.exp, scores)))
    of_call = -0.4 * math.log(len(scores)) + 1.0
    logits = [0.1 * one + 0.8 * (one - total) + of_call for one in scores]
    return scores, [1 / (1 + math.exp(-logit)) for logit in logits]


def kept_sentences(result: PruneResult) -> set[tuple[int, str]]:
    return {
        (index, chunk.text[start:end])
        for chunk in result.kept
        for index, start, end in unit_spans(CHUNKS)
        if index == chunk.index
        and any(
            first <= start and end <= last for first, last in chunk.spans or ((0, len(chunk.text)),)
        )
    }


@pytest.mark.parametrize("multi_hop", [False, True])
def test_limits_choose_by_scores_and_probabilities(weights: HeadWeights, multi_hop: bool) -> None:
    pruner = tiny_pruner(weights)
    scores, likely = by_hand(weights, multi_hop)
    names = [(index, CHUNKS[index].text[start:end]) for index, start, end in unit_spans(CHUNKS)]
    ranking = sorted(range(len(scores)), key=lambda number: -scores[number])

    def kept(**limit: Any) -> set[tuple[int, str]]:
        result = pruner.prune(QUERY, CHUNKS, unit="sentence", multi_hop=multi_hop, **limit)
        return kept_sentences(result)

    for count in range(1, len(scores)):
        best = {names[number] for number in ranking[:count]}
        assert kept(top_k=count) == best
        border = (likely[ranking[count - 1]] + likely[ranking[count]]) / 2
        assert kept(min_probability=border) == best
        share = math.fsum(likely[number] for number in ranking[:count]) / math.fsum(likely)
        assert kept(max_missed=1 - share + 1e-4) == best
        assert kept(min_p=border / likely[ranking[0]]) == best
        assert kept(top_p=share - 1e-4) == best


def test_without_calibration_sentences_have_scores_alone(weights: HeadWeights) -> None:
    plain = tiny_pruner(dataclasses.replace(weights, calibration=None, multi_hop=None))
    read = ChunkScores(np.array([1.0, 2.0]))
    spans = [(0, 0, 1), (1, 0, 1), (1, 2, 3)]
    judged = SENTENCES.judge(read.scores, read, np.array([0.0, 4.0, -4.0]), spans)
    assert judged.scores == pytest.approx([1.0, 5.0, -1.0])
    assert judged.probabilities is None
    assert len(plain.prune(QUERY, CHUNKS, top_k=1, unit="sentence").kept) == 1


def test_no_sentence_is_likelier_than_the_likeliest_chunk() -> None:
    spans = [(0, 0, 1), (1, 0, 1), (1, 2, 3)]
    sentences = np.array([0.0, 4.0, -4.0])
    for likely in (0.9999, 0.2, 1e-6):
        read = ChunkScores(np.array([1.0, 2.0]), np.array([likely / 2, likely]), likely)
        judged = SENTENCES.judge(read.scores, read, sentences, spans)
        by_weights = logistic(chunk_terms(judged.scores), SENTENCES.likely)
        assert judged.probabilities == pytest.approx(np.minimum(by_weights, likely))


def test_they_are_saved_and_checked(weights: HeadWeights, tmp_path: Path) -> None:
    weights.save(tmp_path)
    assert HeadWeights.load(tmp_path).sentences == SENTENCES
    numbers = SENTENCES.numbers()
    for name, term, value, message in (
        ("score", "sentence", -1.0, "number of sentence for a sentence is -1.0"),
        ("likely", "log_share", math.nan, "numbers for a sentence are"),
    ):
        bad = {**numbers, name: {**numbers[name], term: value}}
        change_description(tmp_path, sentences=bad)
        with pytest.raises(HeadWeightsError, match=message):
            HeadWeights.load(tmp_path)
    change_description(tmp_path, sentences=None)
    assert HeadWeights.load(tmp_path).sentences is None
