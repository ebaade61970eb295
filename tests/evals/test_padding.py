"""Items padded with other items' distractors."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import pytest

from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import rankable_items
from at2_rag_evals.padding import DistractorPool, padded_set
from tests.evals.labelled_items import make_item

ITEMS = [make_item(f"item{index}", "g-g-----") for index in range(12)]


def texts(chunks: Iterable[Chunk]) -> set[str]:
    return {chunk.rendered for chunk in chunks}


def test_padding_keeps_an_items_chunks_and_adds_distractors_of_the_source() -> None:
    strangers = [make_item(f"item{index}", "g-------", source="other") for index in range(12)]
    padded = DistractorPool([*ITEMS, *strangers]).pad(ITEMS[3], 50, seed=0)
    assert padded is not None
    assert dataclasses.replace(padded, chunks=ITEMS[3].chunks, labels=ITEMS[3].labels) == ITEMS[3]
    assert texts(ITEMS[3].chunks) <= texts(padded.chunks)
    assert texts(padded.gold) == texts(ITEMS[3].gold)
    gold = texts(chunk for item in ITEMS for chunk in item.gold)
    everything = texts(chunk for item in ITEMS for chunk in item.chunks)
    assert texts(padded.chunks) - texts(ITEMS[3].chunks) <= everything - gold
    assert len(padded.chunks) == len(texts(padded.chunks)) == 50


def test_gold_is_anywhere() -> None:
    pool = DistractorPool(ITEMS)
    padded = [pool.pad(ITEMS[0], 20, seed=seed) for seed in range(200)]
    indices = Counter(i for item in padded if item for i, label in enumerate(item.labels) if label)
    assert len(indices) == 20
    assert max(indices.values()) < 40


def test_a_draw_depends_on_seed_and_item_alone() -> None:
    pool = DistractorPool(ITEMS)
    assert pool.pad(ITEMS[0], 30, seed=1) == DistractorPool(ITEMS).pad(ITEMS[0], 30, seed=1)
    assert pool.pad(ITEMS[0], 30, seed=1) != pool.pad(ITEMS[0], 30, seed=2)
    few = padded_set(rankable_items(ITEMS, limit=2), pool, 30, seed=0)
    assert few.items == padded_set(rankable_items(ITEMS), pool, 30, seed=0).items[:2]
    assert few.left_out == {"novels": {"beyond the first 2": 10}}


def test_no_added_chunk_contains_an_answer_or_equals_a_chunk_of_the_item() -> None:
    item = make_item("navy", "g---", answers=["The U.S. Navy", "1,204", ""])
    forbidden = [
        Chunk("he joined the us navy in 1920"),
        Chunk("no answer here", "US Navy"),
        Chunk("it cost 1204 pounds"),
        Chunk(f" {item.chunks[1].text.upper()}!"),
        item.chunks[0],
    ]
    allowed = [
        Chunk("a navy of 12042 ships and 31,204 men"),
        Chunk("US navyman"),
        Chunk("the same text", "in one title"),
        Chunk("the same text", "in another title"),
    ]
    other = make_item("other", "g")
    chunks = (*other.chunks, *forbidden, *allowed)
    labels = (True, *[False] * (len(chunks) - 1))
    pool = DistractorPool([item, dataclasses.replace(other, chunks=chunks, labels=labels)])
    for seed in range(20):
        padded = pool.pad(item, 8, seed=seed)
        assert padded is not None
        assert texts(padded.chunks) == texts([*item.chunks, *allowed])
    assert pool.pad(item, 9, seed=0) is None


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
