"""NQ in the multi-document setting: `nq-open-20_total_documents_gold_at_0.jsonl.gz`, say."""

from __future__ import annotations

from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag_evals.qa.readers.records import Record, read_json_lines


def read_nq_multi_document(path: Path) -> list[Example]:
    """Read the questions with their documents; the annotated one is gold.

    N. F. Liu et al., "Lost in the Middle: How Language Models Use Long Contexts", TACL 2024. Lines
    have no id; it is made of the line's number. In files of retrieved documents none is annotated:
    those that hold an answer are gold there.

    Raises:
        DataError: If the file isn't of this form.
    """
    return [_example(question, number) for number, question in enumerate(read_json_lines(path))]


def _example(question: Record, number: int) -> Example:
    documents = question.records("ctxs")
    key = "isgold" if any("isgold" in document.values for document in documents) else "hasanswer"
    return Example(
        id=question.text("id", default=str(number)),
        source="nq_multi_document",
        query=question.text("question"),
        chunks=tuple(document.chunk("text") for document in documents),
        labels=tuple(document.flag(key) for document in documents),
        answers=tuple(dict.fromkeys(question.texts("answers"))),
    )
