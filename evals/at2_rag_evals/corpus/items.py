"""Questions with the chunks that were retrieved for them, as the other evals read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from at2_rag.data.answers import findable_answers
from at2_rag.data.examples import Example
from at2_rag_evals.corpus.documents import Corpus
from at2_rag_evals.corpus.gold import Gold, GoldFinder
from at2_rag_evals.corpus.questions import Question
from at2_rag_evals.corpus.retrieval import Retrieved

Outcome = Literal[
    "retrieved", "not retrieved", "not in the documents", "nothing tells its gold", "unanswerable"
]
"""What became of a question: whether a gold chunk of it was retrieved, and if not, why."""


@dataclass(frozen=True, slots=True)
class CorpusItem:
    """A question, and what was retrieved for it.

    Attributes:
        example: The question with all chunks that were retrieved.
        gold: Its gold chunks in the corpus.
        recall: For each retriever, and for "merged", the share of the gold chunks that it brings;
            a near-identical chunk will do.
    """

    example: Example
    outcome: Outcome
    gold: Gold
    retrieved: Retrieved
    recall: Mapping[str, float]


def corpus_item(
    question: Question, retrieved: Retrieved, corpus: Corpus, finder: GoldFinder
) -> CorpusItem:
    """Label what was retrieved for a question.

    A chunk that is near-identical to a gold one is gold, too, and of several such chunks only the
    first stays: another copy is neither wrong nor worth looking for.
    """
    gold = finder.find(question)

    def copies(index: int) -> frozenset[int]:
        """Return the gold chunks that a chunk is, or is near-identical to."""
        return frozenset(
            each for each in gold.chunks if each == index or finder.near_identical(each, index)
        )

    copied = {index: copies(index) for index in retrieved.merged}
    kept: list[int] = []
    for index in retrieved.merged:
        gold_before = (other for other in kept if copied[other])
        if not copied[index] or not any(finder.near_identical(index, o) for o in gold_before):
            kept.append(index)
    brought = {**retrieved.by_retriever, "merged": retrieved.merged}
    recall = {
        name: len(frozenset[int]().union(*map(copied.__getitem__, indices))) / len(gold.chunks)
        for name, indices in brought.items()
        if gold.chunks
    }
    return CorpusItem(
        example=Example(
            id=question.id,
            source=question.source,
            query=question.text,
            chunks=tuple(corpus.chunks[index] for index in kept),
            labels=tuple(bool(copied[index]) for index in kept),
            answers=question.answers,
            long_form=question.long_form,
            unanswerable=question.unanswerable,
        ),
        outcome=_outcome(question, gold, any(copied.values())),
        gold=gold,
        retrieved=retrieved,
        recall=recall,
    )


def _outcome(question: Question, gold: Gold, any_retrieved: bool) -> Outcome:
    if question.unanswerable:
        return "unanswerable"
    if gold.chunks:
        return "retrieved" if any_retrieved else "not retrieved"
    if question.quotes or question.gold or findable_answers(question.answers):
        return "not in the documents"
    return "nothing tells its gold"


def example_record(example: Example) -> dict[str, Any]:
    """Return an example as a line of its file."""
    flags = {"unanswerable": example.unanswerable, "long_form": example.long_form}
    return {
        "id": example.id,
        "source": example.source,
        "question": example.query,
        "answers": list(example.answers),
        **{name: True for name, value in flags.items() if value},
        "chunks": [
            {"id": chunk.id, "title": chunk.title, "text": chunk.text, "is_gold": label}
            for chunk, label in zip(example.chunks, example.labels, strict=True)
        ],
    }


def item_record(item: CorpusItem, ids: Sequence[str | None]) -> dict[str, Any]:
    """Return what became of a question; `ids` are those of the corpus's chunks."""
    return {
        "source": item.example.source,
        "id": item.example.id,
        "outcome": item.outcome,
        "gold": [ids[index] for index in sorted(item.gold.chunks)],
        "missing": list(item.gold.missing),
        "retrieved": {
            name: [ids[index] for index in indices]
            for name, indices in item.retrieved.by_retriever.items()
        },
        "recall": dict(item.recall),
    }
