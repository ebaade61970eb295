"""What generators are asked: the same words for all, and yes or no only where it is asked for."""

from __future__ import annotations

import pytest

from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.wording import asks_yes_or_no, prompt_text

CHUNKS = (Chunk("It was published in 1815.", "Emma"), Chunk("Persuasion came later."))


def test_the_whole_prompt() -> None:
    assert prompt_text("Who wrote Emma?", CHUNKS, may_decline=False) == (
        "Answer the question briefly, using only the passages below.\n\n"
        "Emma\nIt was published in 1815.\n\nPersuasion came later.\n\nQuestion: Who wrote Emma?"
    )
    assert prompt_text("Was Emma \ud800 good?", (), may_decline=True) == (
        "Answer the question briefly. Begin with yes or no. If you can't find the answer, say: "
        "I don't know.\n\nQuestion: Was Emma \ufffd good?"
    )


@pytest.mark.parametrize(
    "query",
    [
        "Was Emma published in 1815?",
        "are both films from the same country",
        "  'Is' it true?",
        "Isn't Highbury a village?",
        "Do Emma and Harriet\nmeet?",
        "Have they met?",
        "Does a motor need oil?",
    ],
)
def test_questions_for_yes_or_no(query: str) -> None:
    assert asks_yes_or_no(query)


@pytest.mark.parametrize(
    "query",
    [
        "Was it Emma or Persuasion?",
        "Is Emma older,\nor Harriet?",
        "Can you name the village?",
        "Would  you tell me who wrote it?",
        "Who was Emma?",
        "When did Emma meet Harriet?",
        "Island of which country is Box Hill?",
        "Candles are made of what?",
        "In which year was it published?",
        "",
        "?",
    ],
)
def test_other_questions(query: str) -> None:
    assert not asks_yes_or_no(query)
