"""What masks leave of an item, by hand, and which sentences are gold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.fidelity.masks import MaskPlan
from at2_rag_evals.fidelity.sources import chunk_sentences, sourced_set, whole_chunks
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


def test_masks_over_chunks_keep_them_whole() -> None:
    item = whole_chunks(EXAMPLE)
    assert item.sources == ((0, 0, 46), (1, 0, 0), (2, 0, 16))
    assert item.kept(np.array([True, True, True])) == EXAMPLE.chunks
    assert item.kept(np.array([False, True, True])) == EXAMPLE.chunks[1:]
    assert item.kept(np.array([False, False, False])) == ()
    assert item.sources_as_chunks == EXAMPLE.chunks and item.labels == EXAMPLE.labels
    assert item.key == content_hash(EXAMPLE.query, EXAMPLE.chunks)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([], []),
        ([0], [Chunk("Jane wrote Emma.", "Emma")]),
        ([0, 1], [Chunk("Jane wrote Emma.  It is a novel.", "Emma")]),
        ([1, 2], [Chunk("It is a novel.\nIt is long.", "Emma")]),
        ([0, 2, 3], [Chunk("Jane wrote Emma.  It is long.", "Emma"), Chunk("The sea is wide.")]),
        ([0, 1, 2, 3], [EXAMPLE.chunks[0], EXAMPLE.chunks[2]]),
    ],
)
def test_masks_over_sentences_leave_out_the_text_of_others(
    indices: list[int], expected: list[Chunk]
) -> None:
    item = chunk_sentences(EXAMPLE)
    mask = np.isin(np.arange(4), indices)
    kept = list(item.kept(mask))
    kept.remove(EXAMPLE.chunks[1])  # it has no sentences and always stays
    assert kept == expected


def test_sentences_are_sources_under_their_titles() -> None:
    item, whole = chunk_sentences(EXAMPLE), whole_chunks(EXAMPLE)
    assert item.sources == ((0, 1, 17), (0, 19, 33), (0, 34, 45), (2, 0, 16))
    assert item.sources_as_chunks == (
        Chunk("Jane wrote Emma.", "Emma"),
        Chunk("It is a novel.", "Emma"),
        Chunk("It is long.", "Emma"),
        Chunk("The sea is wide."),
    )
    assert item.key != whole.key
    assert not np.array_equal(MaskPlan().split(item).fitted, MaskPlan().split(whole).fitted)


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
    items = ItemSet("some", (EXAMPLE, few, make_item("many", "g----")), {"novels": {"odd": 2}})
    actual = sourced_set(items, "sentence", max_sentences=4)
    assert [item.example.id for item in actual.items] == ["emma"]
    assert actual.left_out == {
        "novels": {"odd": 2, "fewer than 4 sentences": 1, "more than 4 sentences": 1}
    }
    whole = sourced_set(items, "chunk", max_sentences=4)
    assert [item.unit for item in whole.items] == ["chunk"] * 3
    assert whole.left_out == items.left_out
