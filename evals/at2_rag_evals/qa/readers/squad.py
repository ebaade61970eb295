"""SQuAD, versions 1.1 and 2.0: `train-v2.0.json`, `dev-v1.1.json` and the like."""

from __future__ import annotations

from pathlib import Path

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.readers.records import Record, as_record, read_json
from at2_rag_evals.seeding import generator

MOST_CHUNKS = 10


def read_squad(path: Path) -> list[Example]:
    """Read the questions, each with paragraphs of its article.

    P. Rajpurkar, R. Jia and P. Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD",
    ACL 2018. A question has one paragraph; here up to nine others of the article are added that
    don't hold an answer, drawn by the question's id, in the article's order. An impossible question
    is unanswerable, and its paragraph is a distractor; its plausible answers are not read.

    Raises:
        DataError: If the file isn't of this form.
    """
    examples = []
    for article in as_record(read_json(path), str(path)).records("data"):
        title = article.text("title", default="").replace("_", " ")
        paragraphs = article.records("paragraphs")
        texts = [paragraph.text("context") for paragraph in paragraphs]
        for index, paragraph in enumerate(paragraphs):
            for question in paragraph.records("qas", optional=True):
                examples.append(_example(question, title, texts, index))
    return examples


def _example(question: Record, title: str, texts: list[str], gold: int) -> Example:
    marked = question.records("answers", optional=True)
    answers = tuple(dict.fromkeys(answer.text("text") for answer in marked))
    impossible = question.flag("is_impossible")
    findable = findable_answers(answers)
    others = [
        index
        for index, text in enumerate(texts)
        if index != gold and text != texts[gold] and not contains_answer(normalise(text), findable)
    ]
    identifier = question.text("id")
    drawn = generator(0, "squad", identifier).permutation(len(others))[: MOST_CHUNKS - 1]
    shown = sorted([gold, *(others[number] for number in drawn)])
    return Example(
        id=identifier,
        source="squad",
        query=question.text("question"),
        chunks=tuple(Chunk(texts[index], title or None) for index in shown),
        labels=tuple(index == gold and not impossible for index in shown),
        answers=() if impossible else answers,
        unanswerable=impossible,
    )
