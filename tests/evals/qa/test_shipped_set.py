"""The question-answering set that comes with the package: what its README promises of it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example, read_examples
from at2_rag_evals.corpus.documents import read_corpus
from at2_rag_evals.corpus.gold import GoldFinder
from at2_rag_evals.corpus.questions import read_questions
from at2_rag_evals.items import rankable_items
from at2_rag_evals.qa.items import answerable_items, kind_of
from at2_rag_evals.qa.metrics import abstains, answer_contained
from at2_rag_evals.qa.shipped_set import ITEMS

SINGLE, MULTI_HOP, UNANSWERABLE = "shipped_single", "shipped_multi_hop", "shipped_unanswerable"
DOCUMENTATION = "shipped_documentation"
COUNTS = {SINGLE: 36, MULTI_HOP: 18, UNANSWERABLE: 24, DOCUMENTATION: 30}
GOLD = {SINGLE: {1}, MULTI_HOP: {2, 3}, UNANSWERABLE: {0}, DOCUMENTATION: {1, 2}}
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def items() -> list[Example]:
    return read_examples(ITEMS)


@pytest.fixture(scope="module")
def answerable(items: list[Example]) -> list[Example]:
    return [item for item in items if not item.unanswerable]


def words(text: str) -> str:
    """Letters and digits alone, between spaces: another way to look for a text in a text."""
    return " ".join(["", *re.findall(r"[^\W_]+", text.lower()), ""])


def test_every_item_is_of_its_kind_and_judged(
    items: list[Example], answerable: list[Example]
) -> None:
    assert Counter(item.source for item in items) == COUNTS
    assert len({item.id for item in items}) == len({item.query for item in items}) == len(items)
    for item in items:
        assert sum(item.labels) in GOLD[item.source], item.id
        assert item.unanswerable is (item.source == UNANSWERABLE), item.id
        assert bool(item.answers) is not item.unanswerable, item.id
        assert kind_of(item) == ("unanswerable" if item.unanswerable else "short"), item.id
        assert 8 <= len(item.chunks) <= 12, item.id
        assert len({words(chunk.text) for chunk in item.chunks}) == len(item.chunks), item.id
        assert all(40 <= len(chunk.text.split()) <= 130 for chunk in item.chunks), item.id
    judged = answerable_items(items)
    assert len(judged.items) == len(items) and not judged.left_out
    assert judged.remarks == {UNANSWERABLE: {"no gold": COUNTS[UNANSWERABLE]}}
    assert list(rankable_items(items).items) == answerable


def test_gold_chunks_hold_an_answer_and_distractors_none(answerable: list[Example]) -> None:
    for item in answerable:
        findable = findable_answers(item.answers)
        assert len(findable) == len({normalise(answer) for answer in item.answers}), item.id
        gold = "\n".join(chunk.rendered for chunk in item.gold)
        assert contains_answer(normalise(gold), findable), item.id
        assert any(words(answer) in words(gold) for answer in item.answers), item.id
        for chunk, label in zip(item.chunks, item.labels, strict=True):
            if not label:
                assert not contains_answer(normalise(chunk.rendered), findable), item.id
                assert not any(words(answer) in words(chunk.rendered) for answer in item.answers)
        if len(item.gold) > 1:  # the other gold chunk says what to look for
            assert sum(answer_contained(c.rendered, item.answers) for c in item.gold) == 1.0


def test_neither_questions_nor_positions_give_an_answer_away(answerable: list[Example]) -> None:
    for item in answerable:
        assert answer_contained(item.query, item.answers) == 0.0, item.id
        for answer in item.answers:
            assert not re.fullmatch(r"\d{1,2}", answer) and not abstains(answer), item.id
    for source, share in ((SINGLE, 0.3), (MULTI_HOP, 0.25), (DOCUMENTATION, 0.25)):
        thirds = Counter(
            index * 3 // len(item.chunks)
            for item in answerable
            if item.source == source
            for index, label in enumerate(item.labels)
            if label
        )
        assert all(thirds[third] >= share * thirds.total() for third in range(3)), thirds
    assert sum(item.labels[0] for item in answerable) <= 0.2 * len(answerable)


def test_the_documentation_part_is_what_corpus_mode_makes_of_the_example(
    items: list[Example],
) -> None:
    corpus = read_corpus(EXAMPLES / "documentation")
    questions = read_questions([EXAMPLES / "documentation-questions.jsonl"])
    assert (len(corpus.chunks), len(questions)) == (56, 36)
    finder = GoldFinder(corpus)
    by_question = {item.query: item for item in items}
    for question in questions:
        gold = finder.find(question)
        assert not gold.missing, question.id
        item = by_question[question.text]
        assert (item.answers, item.unanswerable) == (question.answers, question.unanswerable)
        assert set(item.gold) == {
            replace(corpus.chunks[index], id=None) for index in gold.chunks
        }, question.id
        assert {chunk.text for chunk in item.chunks} <= {chunk.text for chunk in corpus.chunks}
