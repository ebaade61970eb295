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
    assert len(kinds) == 11
    assert all([one.question for one in lists[kind]] == [0, 7] for kind in kinds)
    again = by_kind(QUESTIONS, [7])
    assert [one.example for one in again["short with gold"]] == [
        lists["short with gold"][1].example
    ]


def test_what_a_list_says_of_its_answer_is_so() -> None:
    for one in chunk_lists(QUESTIONS, range(12), seed=0):
        example = one.example
        gold = {chunk.text for chunk in QUESTIONS[one.question].gold}
        held = [chunk.text in gold for chunk in example.chunks]
        assert list(example.labels) == held, one.kind
        assert example.unanswerable != any(held), one.kind


def test_sizes_and_where_chunks_are_from() -> None:
    sizes = {"short with gold": SHORT, "short without gold": SHORT, "gold alone": 1}
    sizes |= {"other alone": 1, "unrelated, short": SHORT, "unrelated alone": 1, "echo alone": 1}
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
