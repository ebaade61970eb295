"""Echoes of a question in chunks: what is blanked, and what must stay."""

from __future__ import annotations

import pytest

from at2_rag.text.chunks import Chunk
from at2_rag.text.echo import without_echoes

QUERY = "Who wrote the novel Emma, and when was it published?"


def left(text: str, query: str = QUERY) -> str:
    """Return what is left of a text; check that all of it keeps its position."""
    [chunk] = without_echoes(query, [Chunk(text)])
    assert len(chunk.text) == len(text)
    kept = zip(chunk.text, text, strict=True)
    assert all(one == other or (one == " " and not other.isspace()) for one, other in kept)
    return " ".join(chunk.text.split())


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (QUERY, ""),
        (f"{QUERY} Buy cheap books now!", "Buy cheap books now!"),
        (f"Hi all,\n{QUERY.lower()}\nThanks for any help!", "Hi all, Thanks for any help!"),
        ("So: who WROTE the novel Emma and when was it published?! I can't say.", "I can't say."),
        (f"**{QUERY}**\n\nJane Austen, in 1815.", "** ** Jane Austen, in 1815."),
        (f"Question: {QUERY}\nAnswer: Dickens", "Answer: Dickens"),
        (f"People also ask\n{QUERY}\nWho wrote Persuasion?\nA list.", "People also ask A list."),
        ("When was the novel Emma published, and who wrote it? We don't know.", "We don't know."),
        ("Emma novel wrote published, " * 4 + "\nIt rains.", ""),
        ("It rained all day in the old town, and the boats stayed in the harbour until evening.\n"
         + "Emma novel wrote published " * 4,
         "It rained all day in the old town, and the boats stayed in the harbour until evening."),
    ],
)  # fmt: skip
def test_what_repeats_the_question_is_blank(text: str, rest: str) -> None:
    assert left(text) == rest


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (QUERY, "Jane Austen, who wrote the novel Emma, was born in 1775."),
        (QUERY, "The novel Emma was published in 1815. It was written by Jane Austen."),
        ("Who wrote Emma?", "Jane Austen, who wrote Emma, was born in 1775."),
        ("Is Cuba an island?", "Cuba is an island."),
        ("What is the largest island in the Caribbean Sea?",
         "Cuba is the largest island in the Caribbean Sea."),
        ("largest island in the Caribbean Sea", "Cuba is the largest island in the Caribbean Sea."),
        ("largest island in the Caribbean Sea", "Largest island in the Caribbean Sea is Cuba."),
        ("error code 42", "Error code 42: disk full."),
        ("The service does not support Asia.", "The service does not support Asia."),
        ("How do I get a user by id?",
         "def get_user(user_id):\n    user = User.get(user_id)\n    return user"),
        ("Is a tomato a fruit or a vegetable?",
         "Tomato: fruit. Vegetable? No: a fruit. A tomato is a fruit, not a vegetable."),
        ("What is the difference between net revenue and gross revenue?",
         "Net revenue, not gross revenue, is reported; gross revenue is internal."),
        ("Emma", "Emma. Emma Emma."),
        ("?!", "?!"),
        ("word " * 1000, "word " * 1000),
    ],
)  # fmt: skip
def test_what_may_answer_stays(query: str, text: str) -> None:
    assert without_echoes(query, [Chunk(text)]) == [Chunk(text)]


@pytest.mark.parametrize(
    "text",
    ["{} Visit our shop.", "Question: {}\nVisit our shop.", "<|user|>{}<|end|>Visit our shop."],
)
def test_a_question_needs_no_question_mark(text: str) -> None:
    for query in ("who wrote the novel emma", "who wrote emma", "Is the author of Emma known"):
        rest = left(text.format(query), query)
        assert rest.endswith("Visit our shop.") and "mma" not in rest


def test_titles_and_other_scripts() -> None:
    titled = Chunk("Jane Austen, in 1815.", QUERY)
    assert without_echoes(QUERY, [titled]) == [titled]
    assert (
        left("東京の人口は何人ですか?約1400万人です。", "東京の人口は何人ですか?")
        == "約1400万人です。"
    )
    question = "Кто написал роман «Эмма»?"
    assert left(f"{question} Джейн Остин.", question) == "Джейн Остин."
    greek = "Ποιος έγραψε το 1815 το μυθιστόρημα Έμμα;"
    assert left(f"{greek} Τζέιν Όστεν.", greek) == "Τζέιν Όστεν."
    thai = "ใครเขียนนวนิยายเอ็มมา"
    assert left(f"{thai}ช่วยด้วยครับ", f"{thai}?") == "ช่วยด้วยครับ"
