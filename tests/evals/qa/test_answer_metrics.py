"""Metrics of answers: by hand, by a regular expression, and by torchmetrics."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest
from torchmetrics.text import SQuAD

from at2_rag_evals.qa.metrics import (
    PHRASES,
    abstains,
    answer_contained,
    exact_match,
    gold_recall,
    token_f1,
)


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("It was JANE  austen!", ["the Jane Austen"], 1),
        ("$1,200.50 in all", ["1200.50"], 1),
        ("", ["Emma"], 0),
        ("anything", ["the", "?"], 0),
        ("Mañana sí", ["mañana"], 1),
        ("Yes, both are.", ["yes"], 1),  # a yes or no is the first word
        ("There is no doubt: yes", ["no"], 0),
        ("They say no more", ["no", "no more"], 1),  # the second is an answer like any other
    ],
)
def test_an_answer_is_contained_as_a_run_of_tokens(
    prediction: str, answers: list[str], expected: int
) -> None:
    assert answer_contained(prediction, answers) == expected


def test_containment_agrees_with_a_regular_expression() -> None:
    """The second implementation never splits: a pattern between white space or ends."""

    def simplified(text: str) -> str:
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\s+", " ", re.sub(r"\b(a|an|the)\b", " ", kept)).strip()

    words = ["the", "a", "sea", "Sea,", "old", "sea-side", "an", "12", "1.2", "of", "U.S.", "us"]
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        prediction = " ".join(rng.choice(words, rng.integers(0, 9)))
        answer = " ".join(rng.choice(words, rng.integers(1, 4)))
        pattern = simplified(answer)
        match = bool(pattern) and re.search(
            rf"(?<!\S){re.escape(pattern)}(?!\S)", simplified(prediction)
        )
        assert answer_contained(prediction, [answer]) == bool(match), (prediction, answer)
        held += bool(match)
    assert 200 < held < 1800


def test_f1_and_exact_match_agree_with_torchmetrics() -> None:
    words = ["the", "a", "sea", "Sea,", "old", "river", "12", "1.2", "of", "town", "?"]
    rng = np.random.default_rng(1)
    matches = 0.0
    for _ in range(300):
        prediction = " ".join(rng.choice(words, rng.integers(0, 5)))
        answers = [" ".join(rng.choice(words, rng.integers(1, 4))) for _ in range(2)]
        theirs = SQuAD()(
            [{"prediction_text": prediction, "id": "1"}],
            [{"answers": {"answer_start": [0, 0], "text": answers}, "id": "1"}],
        )
        assert token_f1(prediction, answers) == pytest.approx(float(theirs["f1"]) / 100)
        assert exact_match(prediction, answers) == float(theirs["exact_match"]) / 100
        matches += exact_match(prediction, answers)
    assert 0 < matches < 300
    assert token_f1("The.", ["a"]) == 1 and token_f1("", ["Emma"]) == token_f1("Emma", []) == 0


def test_gold_recall_by_hand() -> None:
    assert gold_recall([0, 3], [True, True, False, True]) == pytest.approx(2 / 3)
    assert gold_recall([2], [True, True, False, True]) == 0
    assert gold_recall([], [True]) == 0
    assert gold_recall([0, 1], [False, False]) is None


def test_declining_is_recognised_by_its_phrases() -> None:
    declining = ("I don’t know", "The passages do not mention the year.", "Unanswerable", *PHRASES)
    assert all(map(abstains, declining))
    assert not any(map(abstains, ("Emma", "", "An unknowable sea", "I know")))
