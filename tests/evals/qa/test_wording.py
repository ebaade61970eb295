"""What generators are sent: the same words for all, and yes or no only where it is called for."""

from __future__ import annotations

import pytest

from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.wording import asks_yes_or_no, prompt_text


def test_the_whole_prompt() -> None:
    chunks = (Chunk("It was published in 1815.", "Emma"), Chunk("Persuasion came later."))
    assert prompt_text("Who wrote Emma?", chunks, may_decline=False) == (
        "Answer the question briefly, using only the passages below.\n\n"
        "Emma\nIt was published in 1815.\n\nPersuasion came later.\n\nQuestion: Who wrote Emma?"
    )
    assert prompt_text("Was Emma \ud800 good?", (), may_decline=True) == (
        "Answer the question briefly. Begin with yes or no. If you can't find the answer, say: "
        "I don't know.\n\nQuestion: Was Emma \ufffd good?"
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("are both films from the same country", True),
        ("Isn't Highbury a village?", True),
        ("Do Emma and Harriet\nmeet?", True),
        ("Is Emma older,\nor Harriet?", False),
        ("Would  you tell me who wrote it?", False),
        ("Candles are made of what?", False),
        ("?", False),
    ],
)
def test_questions_for_yes_or_no(query: str, expected: bool) -> None:
    assert asks_yes_or_no(query) is expected
