"""Lists of chunks to calibrate on: a question's as retrieved, and the other kinds that calls have.

A pruner meets lists without an answer, of one chunk or three, of chunks of a single sentence, of
nothing but unrelated chunks, and chunks that repeat the question. Probabilities that are fitted to
long lists with an answer alone are wrong for all of these.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag.text.echo import without_echoes
from at2_rag.text.function_words import FUNCTION_WORDS
from at2_rag.text.sentences import sentence_spans
from at2_rag.training.collection.echoes import echo_of
from at2_rag.training.collection.samples import evidence_test
from at2_rag.training.collection.twins import TwinMaker

SHORT = 3  # chunks of a short list
UNRELATED = 8  # chunks of a list from other sources
ALIKE = 0.5  # share of questions whose short lists hold the chunks that share most words with them
TITLED = 0.5  # share of questions whose single sentences keep the titles of their chunks

ListKind: TypeAlias = Literal[
    "retrieved",
    "twin with gold",
    "twin without gold",
    "short with gold",
    "short without gold",
    "gold alone",
    "other alone",
    "sentences with gold",
    "sentences without gold",
    "gold sentence alone",
    "other sentence alone",
    "unrelated",
    "unrelated, short",
    "unrelated alone",
    "with an echo",
    "echo alone",
]


@dataclass(frozen=True, slots=True)
class ChunkList:
    """A question with one of its lists of chunks, without their echoes of it."""

    kind: ListKind
    question: int  # index of the question
    example: Example  # `unanswerable` says that no chunk answers


def chunk_lists(
    questions: Sequence[Example], varied: Sequence[int], *, seed: int
) -> Iterator[ChunkList]:
    """Yield each question's list as retrieved, and of the `varied` questions all other kinds.

    Questions have gold chunks and others. Of what can't be made of one, such as twins, there is
    none; what is drawn depends on the questions, the seed and the question alone.
    """
    for index, example in enumerate(questions):
        yield _list("retrieved", index, example)
    twin_maker = TwinMaker(questions)
    for index in varied:
        example = questions[index]
        name = f"lists/{example.source}/{example.id}".encode(errors="surrogatepass")
        rng = np.random.default_rng([seed, zlib.crc32(name)])
        if twins := twin_maker.twins(example, seed=seed):
            yield _list("twin with gold", index, twins.answerable)
            yield _list("twin without gold", index, twins.unanswerable)
        gold, others = _gold_and_others(example, rng)
        cut = _cut_to_sentences(example, [gold, *others[:SHORT]], rng)
        yield _list("gold alone", index, _part(example, [gold]))
        if cut:
            yield _list("gold sentence alone", index, _part(cut, [gold]))
        if others:
            short = rng.permutation([gold, *others[: SHORT - 1]]).tolist()
            yield _list("short with gold", index, _part(example, short))
            yield _list("short without gold", index, _part(example, others[:SHORT]))
            yield _list("other alone", index, _part(example, others[:1]))
            if cut:
                yield _list("sentences with gold", index, _part(cut, short))
                yield _list("sentences without gold", index, _part(cut, others[:SHORT]))
                yield _list("other sentence alone", index, _part(cut, others[:1]))
        if unrelated := _unrelated(example, questions, rng):
            yield _list("unrelated", index, _unanswered(example, unrelated))
            yield _list("unrelated, short", index, _unanswered(example, unrelated[:SHORT]))
            yield _list("unrelated alone", index, _unanswered(example, unrelated[:1]))
        echo = echo_of(example.query, rng)
        chunks, labels = (*example.chunks, echo), (*example.labels, False)
        yield _list("with an echo", index, replace(example, chunks=chunks, labels=labels))
        yield _list("echo alone", index, _unanswered(example, [echo]))


def _list(kind: ListKind, question: int, example: Example) -> ChunkList:
    chunks = tuple(without_echoes(example.query, example.chunks))
    example = replace(example, id=f"{example.id}, {kind}", chunks=chunks, gold_sentences=())
    return ChunkList(kind, question, example)


def _gold_and_others(example: Example, rng: np.random.Generator) -> tuple[int, list[int]]:
    """Return one of the gold chunks, and others in the order in which short lists take them.

    Others that are evidence, though nobody labelled them so, are left out.
    """
    labels, is_evidence = np.array(example.labels), evidence_test(example)
    gold = int(rng.choice(np.flatnonzero(labels)))
    chunks = example.chunks
    others: list[int] = [
        index
        for index in rng.permutation(np.flatnonzero(~labels)).tolist()
        if not is_evidence(normalise(chunks[index].rendered), chunks[index])
    ]
    if rng.random() < ALIKE:
        words = _content_words(example.query)
        others.sort(key=lambda index: -len(words & _content_words(example.chunks[index].rendered)))
    return gold, others


def _content_words(text: str) -> set[str]:
    return set(text.casefold().split()) - FUNCTION_WORDS


def _cut_to_sentences(
    example: Example, indices: Sequence[int], rng: np.random.Generator
) -> Example | None:
    """Return the example with some chunks, of which the first is gold, cut to one sentence each.

    The sentence of the gold chunk is one that is named as evidence, or has an answer in it; None if
    there is none. Those of others, which hold no answer, are any; a chunk without text stays.
    """
    answers = findable_answers(example.answers)
    chunks, titled = list(example.chunks), rng.random() < TITLED
    for number, index in enumerate(indices):
        chunk, is_gold = chunks[index], number == 0
        spans = example.gold_spans(index) if is_gold and example.gold_sentences else []
        sentences = [chunk.text[start:end] for start, end in spans] or [
            sentence
            for start, end in sentence_spans(chunk.text)
            if contains_answer(normalise(sentence := chunk.text[start:end]), answers) == is_gold
        ]
        if is_gold and not sentences:
            return None
        sentence = sentences[int(rng.integers(len(sentences)))] if sentences else ""
        title = chunk.title if titled else None
        chunks[index] = replace(chunk, text=sentence or chunk.text, title=title)
    return replace(example, chunks=tuple(chunks), gold_sentences=())


def _unrelated(
    example: Example, questions: Sequence[Example], rng: np.random.Generator
) -> list[Chunk]:
    """Return chunks of questions of other sources; of its own where there is no other."""
    others = [one for one in questions if one.source != example.source] or questions
    is_evidence, present = evidence_test(example), {chunk.rendered for chunk in example.chunks}
    chunks: list[Chunk] = []
    for number in rng.permutation(len(others)):
        chunk = others[number].chunks[int(rng.integers(len(others[number].chunks)))]
        text = normalise(chunk.rendered)
        if chunk.rendered not in present and not is_evidence(text, chunk):
            chunks.append(chunk)
        if len(chunks) == UNRELATED:
            break
    return chunks


def _part(example: Example, indices: Sequence[int]) -> Example:
    labels = tuple(example.labels[index] for index in indices)
    chunks = tuple(example.chunks[index] for index in indices)
    return replace(example, chunks=chunks, labels=labels, unanswerable=not any(labels))


def _unanswered(example: Example, chunks: Sequence[Chunk]) -> Example:
    labels = (False,) * len(chunks)
    return replace(example, chunks=tuple(chunks), labels=labels, unanswerable=True)
