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
        ("Austen, Jane", ["Jane Austen"], 0),
        ("Jane, the Austen", ["Jane Austen"], 1),  # articles and commas are no tokens
        ("a party", ["art"], 0),
        ("Jane", ["Jane Austen"], 0),
        ("In 1815", ["1814", "1815"], 1),
        ("$1,200.50 in all", ["1200.50"], 1),
        ("the U.S.A", ["USA"], 1),
        ("new york new york city", ["new york city"], 1),
        ("", ["Emma"], 0),
        ("Emma", [], 0),
        ("anything", ["the", "?"], 0),
        ("Mañana sí", ["mañana"], 1),
        ("Yes, both are.", ["yes"], 1),  # a yes or no is the first word
        ("The answer is yes", ["yes"], 0),
        ("There is no doubt: yes", ["no"], 0),
        ("Nobody", ["no"], 0),
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


@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "em"),
    [
        ("Jane Austen", ["Jane Austen"], 1, 1),
        ("the novelist Jane Austen", ["Jane Austen"], 4 / 5, 0),  # P 2/3, R 2/2
        ("sea sea sea", ["sea of sea"], 2 * 2 / 6, 0),  # two shared, by count
        ("Emma", ["Persuasion", "Emma Woodhouse"], 2 / 3, 0),
        ("", ["Emma"], 0, 0),
        ("The.", ["a"], 1, 1),  # both are nothing
        ("Emma", [], 0, 0),
    ],
)
def test_f1_and_exact_match_by_hand(
    prediction: str, answers: list[str], f1: float, em: int
) -> None:
    assert token_f1(prediction, answers) == pytest.approx(f1)
    assert exact_match(prediction, answers) == em


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


def test_gold_recall_by_hand() -> None:
    assert gold_recall([0, 3], [True, True, False, True]) == pytest.approx(2 / 3)
    assert gold_recall([2], [True, True, False, True]) == 0
    assert gold_recall([], [True]) == 0
    assert gold_recall([0, 1], [False, False]) is None


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("I don't know.", 1),
        ("I don’t know", 1),
        ("The passages do not mention the year.", 1),
        ("There is not enough information to say.", 1),
        ("Unanswerable", 1),
        ("Emma", 0),
        ("", 0),
        ("An unknowable sea", 0),
        ("I know", 0),
    ],
)
def test_declining_is_told_by_its_phrases(prediction: str, expected: int) -> None:
    assert abstains(prediction) == expected


def test_each_phrase_of_declining_is_recognised() -> None:
    assert all(abstains(phrase) for phrase in PHRASES)
