"""The kinds of lists that questions are calibrated on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.echoes import ECHOES, echo_of
from at2_rag.training.collection.lists import SHORT, UNRELATED, ChunkList, chunk_lists
from tests.training.calibrating.equal_examples import equal_examples

QUESTIONS = [*equal_examples("novels", 6), *equal_examples("seas", 6)]


def by_kind(questions: list[Example], varied: list[int]) -> dict[str, list[ChunkList]]:
    result = defaultdict[str, list[ChunkList]](list)
    for one in chunk_lists(questions, varied, seed=0):
        result[one.kind].append(one)
    return result


def test_each_question_comes_as_retrieved_and_some_in_all_kinds() -> None:
    lists = by_kind(QUESTIONS, [0, 7])
    assert [one.question for one in lists["retrieved"]] == list(range(12))
    assert [one.example.chunks for one in lists["retrieved"]] == [q.chunks for q in QUESTIONS]
    kinds = set(lists) - {"retrieved"}
    assert len(kinds) == 15
    cut = {kind for kind in kinds if "sentence" in kind}  # of gold chunks that have an answer
    assert all([one.question for one in lists[kind]] == [0, 7] for kind in kinds - cut)
    assert len(cut) == 4 and all({one.question for one in lists[kind]} <= {0, 7} for kind in cut)
    again = by_kind(QUESTIONS, [7])
    assert [one.example for one in again["short with gold"]] == [
        lists["short with gold"][1].example
    ]


def test_what_a_list_says_of_its_answer_is_so() -> None:
    for one in chunk_lists(QUESTIONS, range(12), seed=0):
        example = one.example
        gold = {chunk.text for chunk in QUESTIONS[one.question].gold}
        held = [any(chunk.text in text for text in gold) for chunk in example.chunks]
        assert list(example.labels) == held, one.kind
        assert example.unanswerable != any(held), one.kind


def test_sizes_and_where_chunks_are_from() -> None:
    sizes = {"short with gold": SHORT, "short without gold": SHORT, "gold alone": 1}
    sizes |= {"other alone": 1, "unrelated, short": SHORT, "unrelated alone": 1, "echo alone": 1}
    sizes |= {"sentences with gold": SHORT, "sentences without gold": SHORT}
    sizes |= {"gold sentence alone": 1, "other sentence alone": 1}
    for one in chunk_lists(QUESTIONS, range(12), seed=0):
        question, example = QUESTIONS[one.question], one.example
        shared = {chunk.text for chunk in example.chunks} & {c.text for c in question.chunks}
        if one.kind in sizes:
            assert len(example.chunks) == sizes[one.kind]
        if one.kind.startswith("unrelated"):
            assert not shared and len(example.chunks) <= UNRELATED
            others = {c.text for q in QUESTIONS if q.source != question.source for c in q.chunks}
            assert {chunk.text for chunk in example.chunks} <= others
        if one.kind == "with an echo":
            assert len(example.chunks) == len(question.chunks) + 1 and len(shared) == 6


def test_single_sentences_are_evidence_where_gold_with_and_without_titles() -> None:
    titled = [
        replace(q, chunks=tuple(replace(chunk, title="Owls") for chunk in q.chunks))
        for q in QUESTIONS
    ]
    lists = by_kind(titled, list(range(12)))
    for one in lists["gold sentence alone"]:
        [chunk] = one.example.chunks
        assert titled[one.question].answers[0] in chunk.text and chunk.text.count(".") == 1
    titles = {one.question: one.example.chunks[0].title for one in lists["gold sentence alone"]}
    assert set(titles.values()) == {"Owls", None}
    for one in (*lists["sentences with gold"], *lists["sentences without gold"]):
        assert {chunk.title for chunk in one.example.chunks} == {titles[one.question]}


def test_a_named_sentence_is_the_evidence_and_without_any_there_are_no_sentences() -> None:
    question = Example(
        "1",
        "owls",
        "Where?",
        (Chunk("It rains. In a barn. Since 1901."), Chunk("An owl.")),
        (True, False),
        answers=("1901",),
        gold_sentences=(("In a barn.",), ()),
    )

    def sentences(example: Example) -> set[str]:
        kinds = ("gold sentence alone", "other sentence alone")
        lists = by_kind([example], [0])
        return {one.example.chunks[0].text for kind in kinds for one in lists[kind]}

    assert sentences(question) == {"In a barn.", "An owl."}
    assert sentences(replace(question, gold_sentences=())) == {"Since 1901.", "An owl."}
    assert sentences(replace(question, gold_sentences=(), answers=())) == set()


def test_a_chunk_that_holds_the_answer_isn_t_among_those_without() -> None:
    question = Example(
        "1",
        "owls",
        "Who wrote it?",
        (Chunk("A novel by Jane Austen."), Chunk("It is by Jane Austen."), Chunk("It rains.")),
        (True, False, False),
        answers=("Jane Austen",),
    )
    asked = replace(question, id="2", source="seas", chunks=(*question.chunks[:2], Chunk("A sea.")))
    lists = by_kind([question, asked], [0])
    assert [chunk.text for chunk in lists["short without gold"][0].example.chunks] == ["It rains."]
    for kind in ("unrelated", "unrelated alone", "other alone", "other sentence alone"):
        texts = {chunk.text for one in lists[kind] for chunk in one.example.chunks}
        assert texts <= {"It rains.", "A sea."}, kind
    only = by_kind([replace(question, chunks=question.chunks[:2], labels=(True, False))], [0])
    assert "gold alone" in only and not {"short with gold", "other alone"} & set(only)


def test_echoes_are_blanked_as_in_a_pruner_and_short_lists_are_hard_for_half() -> None:
    echo = echo_of("Who wrote Emma?", np.random.default_rng(0))
    assert "Who wrote Emma?" in echo.text and len(set(ECHOES)) == len(ECHOES)
    assert echo_of("{question} of {0}?", np.random.default_rng(0)).text.count("{0}") == 1
    questions = [replace(q, query="Who wrote of the owl in the harbour?") for q in QUESTIONS]
    for one in chunk_lists(questions, range(12), seed=0):
        if one.kind == "echo alone":
            assert "wrote of the owl" not in one.example.chunks[0].text
    alike = Chunk("the owl in the harbour")
    planted = [
        replace(q, id=str(i), chunks=(*q.chunks, alike), labels=(*q.labels, False))
        for i, q in enumerate(questions)
    ]
    alone = by_kind(planted, list(range(12)))["other alone"]
    assert 4 <= sum(one.example.chunks[0] == alike for one in alone) <= 11
