"""Fitting sentence weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.text.chunks import Chunk
from at2_rag.training.calibrating.sentences import SentenceCall, fit_sentences, gold_sentences

TRUE = np.array([1.2, -0.6, 0.8])


def drawn(count: int, seed: int, source: str = "a") -> list[SentenceCall]:
    """Draw calls in which the sentence with evidence follows a softmax over the true scores."""
    rng = np.random.default_rng(seed)
    calls = []
    for place in range(count):
        terms = rng.normal(0, 2, (int(rng.integers(4, 20)), 3))
        gold = np.zeros(len(terms), dtype=bool)
        gold[int(np.argmax(terms @ TRUE + rng.gumbel(size=len(terms))))] = True
        calls.append(SentenceCall(source, place % 5, terms, float(rng.normal()), gold))
    return calls


def test_the_weights_are_those_that_evidence_follows() -> None:
    found = fit_sentences([*drawn(1500, 0), *drawn(300, 1, "b")])
    assert found.score == pytest.approx(TRUE.tolist(), abs=0.15)


def test_probabilities_are_how_often_there_is_evidence() -> None:
    found = fit_sentences(drawn(1500, 2))
    likely, gold = [], []
    for own in drawn(1500, 3):
        scores = own.terms @ np.array(found.score)
        shares = scores - np.logaddexp.reduce(scores)
        logits = np.stack([scores, shares, np.full(len(scores), own.evidence)], 1)
        slopes, constant = np.array(found.likely[:3]), found.likely[3]
        likely.append(1 / (1 + np.exp(-(logits @ slopes + constant))))
        gold.append(own.gold)
    every, outcomes = np.concatenate(likely), np.concatenate(gold)
    for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 0.8)):
        chosen = (every >= low) & (every < high)
        assert chosen.sum() > 50
        assert outcomes[chosen].mean() == pytest.approx(every[chosen].mean(), abs=0.1)


def test_a_sentence_is_never_worth_less_for_its_own_score() -> None:
    turned = [
        dataclasses.replace(own, terms=own.terms * np.array([1, 1, -1])) for own in drawn(300, 4)
    ]
    assert fit_sentences(turned).score[2] == 0


def test_without_both_kinds_nothing_can_be_fitted() -> None:
    none = [dataclasses.replace(own, gold=np.ones(len(own.gold), bool)) for own in drawn(10, 5)]
    with pytest.raises(InputError, match="sentence weights can't be fitted"):
        fit_sentences(none)
    with pytest.raises(InputError, match="sentence weights can't be fitted"):
        fit_sentences([])


def example(**given: object) -> Example:
    chunks = (
        Chunk("Emma was born in Steventon. It is small."),
        Chunk("Steventon lies in Hampshire. Boats pass. A mill stands in Steventon."),
        Chunk("Nobody lives in Steventon."),
    )
    own = Example("1", "s", "where?", chunks, (True, True, False), ("Steventon",))
    return dataclasses.replace(own, **given)  # type: ignore[arg-type]


def test_what_the_file_names_is_evidence() -> None:
    named = example(gold_sentences=(("Emma was born in Steventon.",), ("Boats pass.",), ()))
    found = gold_sentences(named)
    assert found is not None
    assert found.tolist() == [True, False, False, True, False, False]
    across = example(gold_sentences=((), (" Boats pass. A mill stands ", " "), ()))
    found = gold_sentences(across)
    assert found is not None
    assert found.tolist() == [False, False, False, True, True, False]


def test_else_what_has_the_answer_in_a_gold_chunk_is() -> None:
    found = gold_sentences(example())
    assert found is not None
    assert found.tolist() == [True, False, True, False, True, False]
    assert gold_sentences(example(answers=("Bath",))) is None
    assert gold_sentences(example(answers=())) is None
