"""Published data sets in JSON or JSON Lines, one function each.

All raise `DataError` if the file isn't of the form that their authors describe.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.readers.records import Record, as_record, read_json, read_json_lines
from at2_rag_evals.seeding import generator


def read_squad(path: Path) -> Iterator[Example]:
    """Read SQuAD, versions 1.1 and 2.0: the questions, each with paragraphs of its article.

    P. Rajpurkar, R. Jia and P. Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD",
    ACL 2018. A question has one paragraph; up to nine others of the article are added that don't
    hold an answer, drawn by the question's id, in the article's order. An impossible question is
    unanswerable, and its paragraph is a distractor; its plausible answers are not read.
    """
    for article in as_record(read_json(path), str(path)).records("data"):
        title = article.text("title", default="").replace("_", " ") or None
        paragraphs = article.records("paragraphs")
        chunks = [Chunk(paragraph.text("context"), title) for paragraph in paragraphs]
        for index, paragraph in enumerate(paragraphs):
            for question in paragraph.records("qas", optional=True):
                yield _squad_example(question, chunks, index)


def _squad_example(question: Record, chunks: list[Chunk], gold: int) -> Example:
    marked = question.records("answers", optional=True)
    answers = tuple(dict.fromkeys(answer.text("text") for answer in marked))
    impossible = question.flag("is_impossible")
    findable = findable_answers(answers)
    others = [
        index
        for index, chunk in enumerate(chunks)
        if chunk.text != chunks[gold].text and not contains_answer(normalise(chunk.text), findable)
    ]
    identifier = question.text("id")
    drawn = generator(0, "squad", identifier).permutation(len(others))[:9]
    shown = sorted([gold, *(others[number] for number in drawn)])
    return Example(
        id=identifier,
        source="squad",
        query=question.text("question"),
        chunks=tuple(chunks[index] for index in shown),
        labels=tuple(index == gold and not impossible for index in shown),
        answers=() if impossible else answers,
        unanswerable=impossible,
    )


def read_hotpotqa(path: Path) -> Iterator[Example]:
    """Read HotpotQA's distractor setting, or 2WikiMultihopQA, which is alike.

    Z. Yang et al., "HotpotQA: A Dataset for Diverse, Explainable Multi-hop Question Answering",
    EMNLP 2018. Paragraphs of supporting facts are gold. A fact whose paragraph isn't there marks
    nothing, and one whose sentence isn't there (there are such) marks the paragraph alone. The test
    file has neither answers nor facts.
    """
    values = read_json(path)
    if not isinstance(values, list):
        raise DataError(f"{path}: a JSON {type(values).__name__}; expected a list of questions")
    for index, value in enumerate(values):
        yield _hotpotqa_example(as_record(value, f"{path}: [{index}]"))


def _hotpotqa_example(question: Record) -> Example:
    facts: dict[str, set[int]] = {}
    for title, number in _pairs(question, "supporting_facts", int, optional=True):
        facts.setdefault(title, set()).add(number)
    chunks, labels, gold = [], [], []
    for title, sentences in _pairs(question, "context", list):
        if not all(isinstance(sentence, str) for sentence in sentences):
            raise question.unexpected("context", "sentences")
        chunks.append(Chunk("".join(_spaced(sentences)).strip(), title))
        labels.append(title in facts)
        marked = sorted(facts.get(title, ()))
        gold.append(tuple(sentences[n].strip() for n in marked if 0 <= n < len(sentences)))
    answer = question.text("answer", default="")
    return Example(
        id=question.text("_id"),
        source="hotpotqa",
        query=question.text("question"),
        chunks=tuple(chunks),
        labels=tuple(labels),
        answers=(answer,) if answer else (),
        gold_sentences=tuple(gold) if any(gold) else (),
    )


def _spaced(sentences: list[str]) -> list[str]:
    """Return the sentences with a space between two where there is none."""
    return [
        text if not n or text[:1].isspace() or sentences[n - 1][-1:].isspace() else f" {text}"
        for n, text in enumerate(sentences)
    ]


def _pairs(
    question: Record, key: str, second: type, *, optional: bool = False
) -> list[tuple[str, Any]]:
    pairs = []
    for value in question.items(key, optional=optional):
        match value:
            case [str(title), other] if isinstance(other, second):
                pairs.append((title, other))
            case _:
                expected = f"pairs of a title and a JSON {second.__name__}"
                raise question.unexpected(key, expected)
    return pairs


def read_musique(path: Path) -> Iterator[Example]:
    """Read MuSiQue: the questions with their twenty paragraphs; supporting ones are gold.

    H. Trivedi et al., "MuSiQue: Multihop Questions via Single-hop Question Composition", TACL 2022.
    The full variant has each question twice under one id, answerable and, with a supporting
    paragraph taken out, not: the second is unanswerable and gets the id's ending ":unanswerable".
    What support it has left is no evidence for an answer, and so not gold.
    """
    for question in read_json_lines(path):
        answerable = question.flag("answerable", default=True)
        aliases = question.texts("answer_aliases", optional=True)
        answers = dict.fromkeys(filter(None, [question.text("answer", default=""), *aliases]))
        paragraphs = question.records("paragraphs")
        identifier = question.text("id")
        yield Example(
            id=identifier if answerable else f"{identifier}:unanswerable",
            source="musique",
            query=question.text("question"),
            chunks=tuple(
                Chunk(paragraph.text("paragraph_text"), paragraph.text("title"))
                for paragraph in paragraphs
            ),
            labels=tuple(
                answerable and paragraph.flag("is_supporting") for paragraph in paragraphs
            ),
            answers=tuple(answers) if answerable else (),
            unanswerable=not answerable,
        )


def read_nq_multi_document(path: Path) -> Iterator[Example]:
    """Read NQ in the multi-document setting, such as nq-open-20_total_documents_gold_at_0.

    N. F. Liu et al., "Lost in the Middle: How Language Models Use Long Contexts", TACL 2024. Lines
    have no id; it is the line's number. The annotated document is gold; in files of retrieved
    documents, where none is annotated, those are that hold an answer.
    """
    for number, question in enumerate(read_json_lines(path)):
        documents = question.records("ctxs")
        annotated = any("isgold" in document.values for document in documents)
        yield Example(
            id=question.text("id", default=str(number)),
            source="nq_multi_document",
            query=question.text("question"),
            chunks=tuple(document.chunk("text") for document in documents),
            labels=tuple(
                document.flag("isgold" if annotated else "hasanswer") for document in documents
            ),
            answers=tuple(dict.fromkeys(question.texts("answers"))),
        )


def read_rgb(path: Path) -> Iterator[Example]:
    """Read RGB: the questions with some of their passages, positive ones as gold.

    J. Chen et al., "Benchmarking Large Language Models in Retrieval-Augmented Generation", AAAI
    2024. The first three positive passages (of information integration: the first of each part) and
    negative ones up to ten in all, in an order drawn by the question's id. Passages have no titles;
    `positive_wrong`, made up, are not read. An answer is a list of parts, all of them wanted, each
    a string or a list of alternatives. One part is judged by containment; a question of several
    parts counts as long-form, its answer the parts' first alternatives joined.
    """
    for question in read_json_lines(path):
        parts = [
            [str(text) for text in _listed(part) if isinstance(text, (str, int, float))]
            for part in _listed(question.values.get("answer"))
        ]
        if not all(parts):
            raise question.unexpected("answer", "a string or several in each part")
        positive = question.items("positive")
        if positive and all(isinstance(value, list) for value in positive):
            positive = [passage for part in positive for passage in part[:1]]
        if not all(isinstance(value, str) for value in positive):
            raise question.unexpected("positive", "passages")
        gold = len(positive := positive[:3])
        texts = [*positive, *question.texts("negative", optional=True)[: 10 - gold]]
        identifier = question.text("id")
        order = generator(0, "rgb", identifier).permutation(len(texts)).tolist()
        several = len(parts) > 1
        joined = [" and ".join(part[0] for part in parts)]
        yield Example(
            id=identifier,
            source="rgb",
            query=question.text("query"),
            chunks=tuple(Chunk(texts[index]) for index in order),
            labels=tuple(index < gold for index in order),
            answers=tuple(joined if several else parts[0] if parts else ()),
            long_form=several,
        )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
