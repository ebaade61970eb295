"""Fitting sentence weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.text.chunks import Chunk
from at2_rag.training.calibrating.metrics import calibration_error
from at2_rag.training.calibrating.probabilities import CalibrationSample, ScoredSample
from at2_rag.training.calibrating.sentences import (
    SentenceSample,
    fit_sentences,
    gold_sentences,
    sentence_samples,
)

TRUE = np.array([1.2, -0.6, 0.8])
STEVENTON = Example(
    "1",
    "s",
    "where?",
    (
        Chunk("Emma was born in Steventon. It is small."),
        Chunk("Steventon lies in Hampshire. Boats pass. A mill stands in Steventon."),
        Chunk("Nobody lives in Steventon."),
    ),
    (True, True, False),
    ("Steventon",),
)


def drawn(count: int, seed: int, source: str = "a") -> list[SentenceSample]:
    """Draw samples in which the sentence with evidence follows a softmax over the true scores."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        terms = rng.normal(0, 2, (int(rng.integers(4, 20)), 3))
        best = int(np.argmax(terms @ TRUE + rng.gumbel(size=len(terms))))
        gold = np.arange(len(terms)) == best
        samples.append(SentenceSample(source, number % 5, terms, float(rng.normal()), gold))
    return samples


def test_the_weights_are_those_that_evidence_follows() -> None:
    fitted = fit_sentences([*drawn(1500, 0), *drawn(300, 1, "b")])
    assert fitted.score == pytest.approx(TRUE.tolist(), abs=0.15)


def test_probabilities_are_how_often_there_is_evidence() -> None:
    fitted, samples, likely = fit_sentences(drawn(1500, 2)), drawn(1500, 3), []
    for sample in samples:
        scores = sample.terms @ np.array(fitted.score)
        shares = scores - np.logaddexp.reduce(scores)
        terms = np.stack([scores, shares, np.full(len(scores), sample.evidence)], 1)
        slopes, constant = np.array(fitted.likely[:3]), fitted.likely[3]
        likely.append(1 / (1 + np.exp(-(terms @ slopes + constant))))
    gold = np.concatenate([sample.gold for sample in samples])
    assert calibration_error(np.concatenate(likely), gold) < 0.03


def test_a_greater_score_never_lowers_a_sentences_worth() -> None:
    turned = [
        dataclasses.replace(sample, terms=sample.terms * np.array([1, 1, -1]))
        for sample in drawn(300, 4)
    ]
    assert fit_sentences(turned).score[2] == 0


def test_without_both_kinds_nothing_can_be_fitted() -> None:
    all_gold = [dataclasses.replace(one, gold=np.ones(len(one.gold), bool)) for one in drawn(10, 5)]
    with pytest.raises(InputError, match="sentence weights can't be fitted"):
        fit_sentences(all_gold)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # What the file names.
        (
            {"gold_sentences": (("Emma was born in Steventon.",), ("Boats pass.",), ())},
            [True, False, False, True, False, False],
        ),
        # A named range across two sentences.
        (
            {"gold_sentences": ((), (" Boats pass. A mill stands ", " "), ())},
            [False, False, False, True, True, False],
        ),
        # Else sentences of gold chunks with the answer.
        ({}, [True, False, True, False, True, False]),
        ({"answers": ("Bath",)}, None),
        ({"answers": ()}, None),
    ],
)
def test_gold_sentences(changes: dict[str, object], expected: list[bool] | None) -> None:
    gold = gold_sentences(dataclasses.replace(STEVENTON, **changes))  # type: ignore[arg-type]
    assert (gold if gold is None else gold.tolist()) == expected


def test_a_sample_counts_before_and_after_the_second_reading() -> None:
    def scored(
        example: int, scores: list[float], evidence: float, answerable: bool | None = None
    ) -> ScoredSample:
        gold, words = np.array([True, False, False]), np.ones(3, dtype=np.int64)
        features = np.zeros((3, 2), np.float32)
        sample = CalibrationSample(
            "s", example, features, gold, words, answerable=answerable, example=example
        )
        return ScoredSample(sample, np.array(scores), evidence)

    chunks = (
        Chunk("Emma was born in Steventon. It is small."),
        Chunk(" "),
        Chunk("Boats pass. A mill stands there."),
    )
    one = Example("1", "s", "where?", chunks, (True, False, False), ("Steventon",))
    two = dataclasses.replace(one, id="2", gold_sentences=((), (), ("Boats pass.",)))
    samples = sentence_samples(
        [scored(0, [1, 2, 3], 0.1), scored(1, [4, 5, 6], 0.2), scored(0, [0, 0, 0], 0.3, True)],
        [one, two],
        {index: np.arange(4, dtype=np.float32) + index for index in (0, 1)},
        {1: np.array([7.0, 8.0, 9.0])},
    )
    assert [(each.fold, each.evidence, each.gold.tolist()) for each in samples] == [
        (0, 0.1, [True, False, False, False]),
        (1, 0.2, [False, False, True, False]),
        (1, 0.2, [False, False, True, False]),
    ]
    assert [each.terms.tolist() for each in samples] == [
        [[1, 1, 0], [1, 1, 1], [3, 3, 2], [3, 3, 3]],
        [[4, 4, 1], [4, 4, 2], [6, 6, 3], [6, 6, 4]],
        [[7, 4, 1], [7, 4, 2], [9, 6, 3], [9, 6, 4]],
    ]
