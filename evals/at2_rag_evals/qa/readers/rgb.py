"""RGB: `en.json`, `en_refine.json`, `en_int.json`, `en_fact.json`, JSON Lines by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.readers.records import Record, read_json_lines
from at2_rag_evals.seeding import generator

MOST_POSITIVE, MOST_CHUNKS = 3, 10


def read_rgb(path: Path) -> list[Example]:
    """Read the questions with some of their passages, positive ones as gold.

    J. Chen et al., "Benchmarking Large Language Models in Retrieval-Augmented Generation", AAAI
    2024. The first three positive passages (of information integration: the first of each part) and
    negative ones up to ten in all, in an order drawn by the question's id. Passages have no titles;
    `positive_wrong`, made up, are not read. An answer is a list of parts, all of them wanted, each
    a string or a list of alternatives. One part is judged by containment; a question of several
    parts counts as long-form, its answer the parts' first alternatives joined.

    Raises:
        DataError: If the file isn't of this form.
    """
    return [_example(question) for question in read_json_lines(path)]


def _example(question: Record) -> Example:
    parts = [_alternatives(part, question) for part in _listed(question.values.get("answer"))]
    positive = _positive(question)
    negative = question.texts("negative", optional=True)
    texts = [*positive, *negative[: MOST_CHUNKS - len(positive)]]
    identifier = question.text("id")
    order = generator(0, "rgb", identifier).permutation(len(texts))
    several = len(parts) > 1
    answers = [" and ".join(part[0] for part in parts)] if several else parts[0] if parts else []
    return Example(
        id=identifier,
        source="rgb",
        query=question.text("query"),
        chunks=tuple(Chunk(texts[index]) for index in order),
        labels=tuple(bool(index < len(positive)) for index in order),
        answers=tuple(answers),
        long_form=several,
    )


def _positive(question: Record) -> list[str]:
    values = question.items("positive")
    if values and all(isinstance(value, list) for value in values):
        values = [passage for part in values for passage in part[:1]]
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{question.location}: 'positive' is {values!r:.80}; expected passages")
    return values[:MOST_POSITIVE]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _alternatives(part: Any, question: Record) -> list[str]:
    answers = [str(text) for text in _listed(part) if isinstance(text, (str, int, float))]
    if not answers:
        raise DataError(
            f"{question.location}: 'answer' has the part {part!r:.80}; expected a string or several"
        )
    return answers
