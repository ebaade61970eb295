"""Items padded with other items' distractors."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import pytest

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import rankable_items
from at2_rag_evals.padding import DistractorPool, padded_set
from tests.evals.labelled_items import make_item

ITEMS = [make_item(f"item{index}", "g-g-----") for index in range(12)]


def texts(chunks: Iterable[Chunk]) -> set[str]:
    return {chunk.rendered for chunk in chunks}


def test_padding_keeps_the_items_own_chunks_and_adds_distractors_of_the_source() -> None:
    strangers = [make_item(f"item{index}", "g-------", source="other") for index in range(12)]
    padded = DistractorPool([*ITEMS, *strangers]).pad(ITEMS[3], 50, seed=0)
    assert padded is not None
    assert len(padded.chunks) == 50
    by_id = dataclasses.replace(padded, chunks=ITEMS[3].chunks, labels=ITEMS[3].labels)
    assert by_id == ITEMS[3]
    assert texts(ITEMS[3].chunks) <= texts(padded.chunks)
    assert texts(padded.gold) == texts(ITEMS[3].gold)
    gold = texts(chunk for item in ITEMS for chunk in item.gold)
    everything = texts(chunk for item in ITEMS for chunk in item.chunks)
    assert texts(padded.chunks) - texts(ITEMS[3].chunks) <= everything - gold
    assert len(texts(padded.chunks)) == 50


def test_gold_stands_anywhere() -> None:
    pool = DistractorPool(ITEMS)
    places = Counter(
        index
        for seed in range(200)
        for item in [pool.pad(ITEMS[0], 20, seed=seed)]
        if item is not None
        for index, label in enumerate(item.labels)
        if label
    )
    assert len(places) == 20
    assert max(places.values()) < 40


def test_the_draw_is_the_same_for_the_same_seed_and_not_for_another() -> None:
    pool = DistractorPool(ITEMS)
    assert pool.pad(ITEMS[0], 30, seed=1) == DistractorPool(ITEMS).pad(ITEMS[0], 30, seed=1)
    assert pool.pad(ITEMS[0], 30, seed=1) != pool.pad(ITEMS[0], 30, seed=2)


def test_the_draw_of_an_item_does_not_depend_on_which_others_are_judged() -> None:
    pool = DistractorPool(ITEMS)
    few = padded_set(rankable_items(ITEMS, limit=2), pool, 30, seed=0)
    many = padded_set(rankable_items(ITEMS), pool, 30, seed=0)
    assert few.items == many.items[:2]
    assert few.left_out == {"novels": {"beyond the first 2": 10}}


def with_chunks(item: Example, *chunks: Chunk) -> Example:
    labels = (False,) * len(chunks)
    return dataclasses.replace(item, chunks=(*item.chunks, *chunks), labels=(*item.labels, *labels))


def test_no_added_chunk_holds_an_answer_or_equals_an_own_chunk() -> None:
    asked = make_item("asked", "g---", answers=["The U.S. Navy", "1,204", ""])
    forbidden = [
        Chunk("he joined the us navy in 1920"),
        Chunk("no answer here", "US Navy"),
        Chunk("it cost 1204 pounds"),
        Chunk(f" {asked.chunks[1].text.upper()}!"),
        asked.chunks[0],
    ]
    allowed = [
        Chunk("a navy of 12042 ships and 31,204 men"),
        Chunk("US navyman"),
        Chunk("the same text", "in one title"),
        Chunk("the same text", "in another title"),
    ]
    other = with_chunks(make_item("other", "g"), *forbidden, *allowed)
    pool = DistractorPool([asked, other])
    for seed in range(20):
        padded = pool.pad(asked, 8, seed=seed)
        assert padded is not None
        assert texts(padded.chunks) == texts([*asked.chunks, *allowed])
    assert pool.pad(asked, 9, seed=0) is None


def test_items_that_cannot_be_padded_are_left_out_and_counted() -> None:
    items = [make_item("a", "g---"), make_item("b", "g----"), make_item("c", "g------")]
    padded = padded_set(rankable_items(items), DistractorPool(items[:2]), 6, seed=0)
    assert [item.id for item in padded.items] == ["a", "b"]
    assert padded.left_out == {"novels": {"more than 6 chunks": 1}}
    padded = padded_set(rankable_items(items), DistractorPool(items[:1]), 8, seed=0)
    assert [item.id for item in padded.items] == ["b", "c"]
    assert padded.left_out == {"novels": {"too few distractors to pad to 8": 1}}
    with pytest.raises(ValueError, match="has 7 chunks, more than 6"):
        DistractorPool(items).pad(items[2], 6, seed=0)


def test_normalisation_is_squads() -> None:
    assert normalise("  The U.S.\tNavy, an  old one! ") == "us navy old one"
    assert findable_answers(["Yes", " NO!", "the", "", "A Yes man"]) == {"yes man"}
    assert contains_answer("new york city", ["york"])
    assert contains_answer("new york city", ["new york city"])
    assert not contains_answer("new yorkers", ["york", "new york"])
    assert not contains_answer("anything", [])
