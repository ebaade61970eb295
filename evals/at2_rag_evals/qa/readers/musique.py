"""MuSiQue: `musique_ans_v1.0_dev.jsonl`, `musique_full_v1.0_dev.jsonl` and the like."""

from __future__ import annotations

from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.readers.records import Record, read_json_lines


def read_musique(path: Path) -> list[Example]:
    """Read the questions with their twenty paragraphs; supporting ones are gold.

    H. Trivedi et al., "MuSiQue: Multihop Questions via Single-hop Question Composition", TACL 2022.
    The full variant has each question twice under one id, answerable and, with a supporting
    paragraph taken out, not: the second is unanswerable and gets the id's ending ":unanswerable".
    What support it has left is no evidence for an answer, and so not gold.

    Raises:
        DataError: If the file isn't of this form.
    """
    return [_example(question) for question in read_json_lines(path)]


def _example(question: Record) -> Example:
    answerable = question.flag("answerable", default=True)
    answers = [
        question.text("answer", default=""),
        *question.texts("answer_aliases", optional=True),
    ]
    paragraphs = question.records("paragraphs")
    identifier = question.text("id")
    return Example(
        id=identifier if answerable else f"{identifier}:unanswerable",
        source="musique",
        query=question.text("question"),
        chunks=tuple(Chunk(one.text("paragraph_text"), one.text("title")) for one in paragraphs),
        labels=tuple(answerable and one.flag("is_supporting") for one in paragraphs),
        answers=tuple(dict.fromkeys(filter(None, answers))) if answerable else (),
        unanswerable=not answerable,
    )
