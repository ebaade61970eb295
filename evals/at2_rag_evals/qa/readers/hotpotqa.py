"""HotpotQA, distractor setting: `hotpot_dev_distractor_v1.json`; 2WikiMultihopQA is alike."""

from __future__ import annotations

from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.readers.records import Record, as_record, read_json


def read_hotpotqa(path: Path) -> list[Example]:
    """Read the questions with their ten paragraphs; those of supporting facts are gold.

    Z. Yang et al., "HotpotQA: A Dataset for Diverse, Explainable Multi-hop Question Answering",
    EMNLP 2018. A supporting fact whose paragraph isn't there marks nothing, and one whose sentence
    isn't there (there are such) marks the paragraph alone. The test file has neither answers nor
    facts.

    Raises:
        DataError: If the file isn't of this form.
    """
    values = read_json(path)
    if not isinstance(values, list):
        raise DataError(f"{path}: a JSON {type(values).__name__}; expected a list of questions")
    return [_example(as_record(value, f"{path}: [{index}]")) for index, value in enumerate(values)]


def _example(question: Record) -> Example:
    facts: dict[str, set[int]] = {}
    for title, sentence in _pairs(question, "supporting_facts", optional=True):
        if not isinstance(sentence, int):
            raise DataError(
                f"{question.location}: 'supporting_facts' has {sentence!r:.80}; expected a number"
            )
        facts.setdefault(title, set()).add(sentence)
    chunks, labels, gold = [], [], []
    for title, sentences in _pairs(question, "context"):
        if not isinstance(sentences, list) or not all(
            isinstance(sentence, str) for sentence in sentences
        ):
            raise DataError(
                f"{question.location}: 'context' has {sentences!r:.80}; expected sentences"
            )
        text = "".join(_spaced(sentences))
        chunks.append(Chunk(text.strip(), title))
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


def _pairs(question: Record, key: str, *, optional: bool = False) -> list[tuple[str, object]]:
    pairs = []
    for value in question.items(key, optional=optional):
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
            raise DataError(
                f"{question.location}: {key!r} has {value!r:.80}; expected a title and one more"
            )
        pairs.append((value[0], value[1]))
    return pairs
