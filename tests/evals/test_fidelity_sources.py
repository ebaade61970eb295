"""What masks leave of an item, by hand, and which sentences are gold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.fidelity.masks import MaskPlan
from at2_rag_evals.fidelity.sources import (
    Source,
    SourcedItem,
    chunk_sentences,
    sourced_set,
    whole_chunks,
)
from at2_rag_evals.fidelity.systems.base import GoldSystem
from at2_rag_evals.items import ItemSet, content_hash
from tests.evals.labelled_items import make_item

EXAMPLE = Example(
    id="emma",
    source="novels",
    query="Who wrote Emma?",
    chunks=(
        Chunk(" Jane wrote Emma.  It is a novel.\nIt is long. ", "Emma"),
        Chunk("", "Nothing"),
        Chunk("The sea is wide."),
    ),
    labels=(True, False, False),
    gold_sentences=((" It is a novel.",), (), ()),
)


def kept(item: SourcedItem, *places: int) -> list[tuple[str, str | None]]:
    mask = np.zeros(len(item.sources), dtype=bool)
    mask[list(places)] = True
    return [(chunk.text, chunk.title) for chunk in item.kept(mask)]


def test_masks_over_chunks_keep_them_whole() -> None:
    item = whole_chunks(EXAMPLE)
    assert item.sources == (Source(0, 0, 46), Source(1, 0, 0), Source(2, 0, 16))
    assert item.kept(np.array([True, True, True])) == EXAMPLE.chunks
    assert item.kept(np.array([False, True, True])) == EXAMPLE.chunks[1:]
    assert item.kept(np.array([False, False, False])) == ()
    assert item.sources_as_chunks == EXAMPLE.chunks and item.labels == EXAMPLE.labels
    assert item.key == content_hash(EXAMPLE.query, EXAMPLE.chunks)


def test_masks_over_sentences_leave_the_others_text_out() -> None:
    item = chunk_sentences(EXAMPLE)
    assert item.sources == (
        Source(0, 1, 17),
        Source(0, 19, 33),
        Source(0, 34, 45),
        Source(2, 0, 16),
    )
    nothing = ("", "Nothing")
    assert item.kept(np.ones(4, dtype=bool)) == EXAMPLE.chunks
    assert kept(item) == [nothing]
    assert kept(item, 0) == [("Jane wrote Emma.", "Emma"), nothing]
    assert kept(item, 0, 1) == [("Jane wrote Emma.  It is a novel.", "Emma"), nothing]
    assert kept(item, 1, 2) == [("It is a novel.\nIt is long.", "Emma"), nothing]
    assert kept(item, 0, 2, 3) == [
        ("Jane wrote Emma.  It is long.", "Emma"),
        nothing,
        ("The sea is wide.", None),
    ]
    assert [(chunk.text, chunk.title) for chunk in item.sources_as_chunks] == [
        ("Jane wrote Emma.", "Emma"),
        ("It is a novel.", "Emma"),
        ("It is long.", "Emma"),
        ("The sea is wide.", None),
    ]
    assert item.key != whole_chunks(EXAMPLE).key
    assert not np.array_equal(
        MaskPlan().split(item).fitted, MaskPlan().split(whole_chunks(EXAMPLE)).fitted
    )


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        (((" It is a novel.",), (), ()), (False, True, False, False)),
        ((("wrote Emma.  It is",), (), ()), (True, True, False, False)),
        ((("It is",), (), ()), (False, True, True, False)),
        ((("",), (), ("nowhere",)), (False, False, False, False)),
        ((), (True, True, True, False)),
    ],
)
def test_gold_sentences(gold: tuple[tuple[str, ...], ...], expected: tuple[bool, ...]) -> None:
    item = chunk_sentences(replace(EXAMPLE, gold_sentences=gold))
    assert item.labels == expected
    assert GoldSystem().scores(item, "Jane").scores == tuple(map(float, expected))


def test_items_with_too_many_sentences_or_too_few_are_counted() -> None:
    few = replace(EXAMPLE, id="few", chunks=(Chunk("One. Two."), Chunk(""), Chunk("Three.")))
    many = make_item("many", "g----")
    items = ItemSet("natural size", (EXAMPLE, few, many), {"novels": {"no gold chunk": 2}})
    actual = sourced_set(items, "sentence", max_sentences=4)
    assert [item.example.id for item in actual.items] == ["emma"]
    assert actual.left_out == {
        "novels": {"no gold chunk": 2, "fewer than 4 sentences": 1, "more than 4 sentences": 1}
    }
    whole = sourced_set(items, "chunk", max_sentences=4)
    assert [item.unit for item in whole.items] == ["chunk"] * 3
    assert whole.left_out == items.left_out
