"""Questions on a corpus, with what tells their gold chunks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from at2_rag_evals.qa.readers.records import read_json_lines


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what tells its gold chunks.

    Attributes:
        id: Within its source; the number of its line if the file has none.
        source: What figures are reported by; the file's name if the file says nothing.
        text: The question.
        answers: Reference answers, any of which is right.
        quotes: Texts of the documents that are evidence.
        gold: Ids of chunks or documents that hold the evidence.
        unanswerable: Whether no document answers it.
        long_form: Whether answers are written in free words.
    """

    id: str
    source: str
    text: str
    answers: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()
    gold: tuple[str, ...] = ()
    unanswerable: bool = False
    long_form: bool = False


def read_questions(paths: Iterable[Path]) -> list[Question]:
    """Read JSON Lines files, gzipped or not.

    Raises:
        DataError: If a file can't be read, or a line isn't a question.
    """
    questions = []
    for path in paths:
        name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        for number, record in enumerate(read_json_lines(path), start=1):
            text = record.text("question")
            if not text.strip():
                raise record.unexpected("question", "a question that isn't blank")
            questions.append(
                Question(
                    id=record.text("id", default=str(number)),
                    source=record.text("source", default=name),
                    text=text,
                    answers=tuple(record.texts("answers", optional=True)),
                    quotes=tuple(record.texts("quotes", optional=True)),
                    gold=tuple(record.texts("gold", optional=True)),
                    unanswerable=record.flag("unanswerable"),
                    long_form=record.flag("long_form"),
                )
            )
    return questions
