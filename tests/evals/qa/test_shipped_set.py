"""The question-answering set that comes with the package: what its README promises of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example, read_examples
from at2_rag_evals.items import rankable_items
from at2_rag_evals.qa.items import answerable_items, kind_of
from at2_rag_evals.qa.metrics import abstains, answer_contained
from at2_rag_evals.qa.shipped_set import ITEMS
from at2_rag_evals.rankers.bm25 import BM25Ranker

SINGLE, MULTI_HOP, UNANSWERABLE = "shipped_single", "shipped_multi_hop", "shipped_unanswerable"
COUNTS = {SINGLE: 36, MULTI_HOP: 18, UNANSWERABLE: 18}
GOLD = {SINGLE: {1}, MULTI_HOP: {2, 3}, UNANSWERABLE: {0}}


@pytest.fixture(scope="module")
def raw() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ITEMS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def items() -> list[Example]:
    return read_examples(ITEMS)


@pytest.fixture(scope="module")
def answerable(items: list[Example]) -> list[Example]:
    return [item for item in items if not item.unanswerable]


def words(text: str) -> str:
    """Letters and digits alone, between spaces: another way to look for a text in a text."""
    kept = " ".join(re.findall(r"[^\W_]+", text.lower()))
    return f" {kept} "


def test_lines_are_read_as_they_say(raw: list[dict[str, Any]], items: list[Example]) -> None:
    for line, item in zip(raw, items, strict=True):
        flag = ["unanswerable"] if line["source"] == UNANSWERABLE else []
        assert list(line) == ["id", "source", "question", "answers", *flag, "chunks"]
        assert line.get("unanswerable", True) is True
        chunks = [
            {"title": c.title, "text": c.text, "is_gold": label}
            for c, label in zip(item.chunks, item.labels, strict=True)
        ]
        assert line["chunks"] == chunks
        assert (line["id"], line["question"]) == (item.id, item.query)


def test_counts_gold_chunks_and_answers_by_source(items: list[Example]) -> None:
    assert Counter(item.source for item in items) == COUNTS
    assert [item.id for item in items] == [f"shipped-{n:03}" for n in range(1, len(items) + 1)]
    assert len({item.query for item in items}) == len(items)
    for item in items:
        assert sum(item.labels) in GOLD[item.source], item.id
        assert item.unanswerable is (item.source == UNANSWERABLE), item.id
        assert bool(item.answers) is not item.unanswerable, item.id
        assert kind_of(item) == ("unanswerable" if item.unanswerable else "short"), item.id


def test_the_evals_leave_nothing_out(items: list[Example], answerable: list[Example]) -> None:
    judged = answerable_items(items)
    assert len(judged.items) == len(items) and not judged.left_out
    assert judged.remarks == {UNANSWERABLE: {"no gold": COUNTS[UNANSWERABLE]}}
    assert list(rankable_items(items).items) == answerable


def test_chunks_are_eight_to_twelve_unlike_passages(items: list[Example]) -> None:
    titles: dict[str, str | None] = {}
    for item in items:
        assert 8 <= len(item.chunks) <= 12, item.id
        assert len({words(chunk.text) for chunk in item.chunks}) == len(item.chunks), item.id
        assert all(40 <= len(chunk.text.split()) <= 130 for chunk in item.chunks), item.id
        for chunk in item.chunks:
            assert titles.setdefault(chunk.text, chunk.title) == chunk.title, item.id
    assert len(titles) > 100
    assert 0 < sum(not title for title in titles.values()) < 0.2 * len(titles)


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
        if item.source == MULTI_HOP:  # the other gold chunk says what to look for
            assert sum(answer_contained(c.rendered, item.answers) for c in item.gold) == 1.0


def test_questions_give_nothing_away(answerable: list[Example]) -> None:
    """No answer stands in a question or is a small number, a colour, a day or a month."""
    for item in answerable:
        assert answer_contained(item.query, item.answers) == 0.0, item.id
        for answer in item.answers:
            assert not re.fullmatch(r"\d{1,2}", answer), item.id
            assert normalise(answer) not in {"yes", "no", "red", "blue", "green", "monday", "may"}
            assert not abstains(answer), item.id


def test_gold_stands_at_the_start_the_middle_and_the_end_alike(answerable: list[Example]) -> None:
    for source, share in ((SINGLE, 0.3), (MULTI_HOP, 0.25)):
        thirds = Counter(
            index * 3 // len(item.chunks)
            for item in answerable
            if item.source == source
            for index, label in enumerate(item.labels)
            if label
        )
        assert all(thirds[third] >= share * thirds.total() for third in range(3)), thirds
    firsts = sum(item.labels[0] for item in answerable)
    assert firsts <= 0.2 * len(answerable)


def test_bm25_finds_gold_first_often_but_not_always(answerable: list[Example]) -> None:
    pytest.importorskip("bm25s")
    pytest.importorskip("Stemmer")
    ranker = BM25Ranker()
    first = 0
    for item in answerable:
        scores = ranker.score(item.query, item.chunks).scores
        first += item.labels[scores.index(max(scores))]
    assert 0.4 <= first / len(answerable) <= 0.8
