"""Fitting sentence weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.text.chunks import Chunk
from at2_rag.training.calibrating.fits import Labelled
from at2_rag.training.calibrating.metrics import calibration_error
from at2_rag.training.calibrating.probabilities import CalibrationSample, ScoredSample
from at2_rag.training.calibrating.sentences import (
    fit_sentences,
    gold_sentences,
    sentence_samples,
)

TRUE = np.array([1.2, -0.6, 0.8])
TEXTS = (
    "Emma was once born in Steventon. Most houses in there are small.",
    "The village Steventon lies in Hampshire. Boats pass the mill all day long. "
    "An old mill stands in Steventon.",
    "Nobody lives in Steventon.",
)
STEVENTON = Example(
    "1", "s", "where?", tuple(map(Chunk, TEXTS)), (True, True, False), ("Steventon",)
)


def drawn(count: int, seed: int, source: str = "a") -> list[Labelled]:
    """Draw samples in which the sentence with evidence follows a softmax over the true scores."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        terms = rng.normal(0, 2, (int(rng.integers(4, 20)), 3))
        best = int(np.argmax(terms @ TRUE + rng.gumbel(size=len(terms))))
        samples.append(Labelled(source, number % 5, terms, np.arange(len(terms)) == best))
    return samples


def test_weights_follow_evidence_and_probabilities_come_true() -> None:
    fitted = fit_sentences([*drawn(1500, 0), *drawn(300, 1, "b")])
    assert fitted.score == pytest.approx(TRUE.tolist(), abs=0.15)
    samples, likely = drawn(1500, 3), []
    slopes, constant = np.array(fitted.likely[:3]), fitted.likely[3]
    for sample in samples:
        scores = sample.terms @ np.array(fitted.score)
        shares = scores - np.logaddexp.reduce(scores)
        terms = np.stack([scores, shares, np.full(len(scores), np.log(len(scores)))], axis=1)
        likely.append(1 / (1 + np.exp(-(terms @ slopes + constant))))
    gold = np.concatenate([sample.labels for sample in samples])
    assert calibration_error(np.concatenate(likely), gold) < 0.03


def test_a_greater_score_never_lowers_a_sentences_worth() -> None:
    turned = [sample._replace(terms=sample.terms * [1, 1, -1]) for sample in drawn(300, 4)]
    assert fit_sentences(turned).score[2] == 0


def test_without_both_kinds_nothing_can_be_fitted() -> None:
    all_gold = [
        sample._replace(labels=np.ones(len(sample.labels), bool)) for sample in drawn(10, 5)
    ]
    with pytest.raises(InputError, match="sentence weights can't be fitted"):
        fit_sentences(all_gold)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # What the file names.
        (
            {"gold_sentences": (("Emma was once born in Steventon.",), ("Boats pass",), ())},
            [True, False, False, True, False, False],
        ),
        # A named range across two sentences.
        (
            {"gold_sentences": ((), (" long. An old mill stands ", " "), ())},
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
    sample = CalibrationSample("s", 2, np.zeros((3, 2), np.float32), np.zeros(3, bool))
    first = ScoredSample(sample, np.array([1.0, 2.0, 3.0]), 0.1)
    twin = first._replace(sample=dataclasses.replace(sample, kind="twin with gold"))
    unknown = first._replace(sample=dataclasses.replace(sample, question=1))
    examples = [STEVENTON, dataclasses.replace(STEVENTON, answers=())]
    of_sentences = dict.fromkeys((0, 1), np.arange(6, dtype=np.float32))
    again = {3: np.array([7.0, 8.0, 9.0])}
    rows = sentence_samples([first, twin, unknown, first], examples, of_sentences, again)
    assert [one.fold for one in rows] == [2] * 3
    assert [one.labels.tolist() for one in rows] == [[True, False, True, False, True, False]] * 3
    once = [[1, 1, 0], [1, 1, 1], [2, 2, 2], [2, 2, 3], [2, 2, 4], [3, 3, 5]]
    twice = [[7, 1, 0], [7, 1, 1], [8, 2, 2], [8, 2, 3], [8, 2, 4], [9, 3, 5]]
    assert [one.terms.tolist() for one in rows] == [once, once, twice]
