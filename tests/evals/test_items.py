"""Which items can be judged, and which depend on each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from at2_rag.data.clusters import item_clusters
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import content_hash, rankable_items
from tests.evals.labelled_items import make_item


def test_items_that_say_nothing_are_left_out_and_counted_once() -> None:
    examples = [
        make_item("kept", "g---"),
        make_item("short", "g--"),
        make_item("short without gold", "---"),
        make_item("no gold", "----"),
        make_item("all gold", "gggg"),
        make_item("short", "g", source="other"),
        *(make_item(name, source="x") for name in "abc"),
    ]
    judged = rankable_items(examples, limit=2)
    assert [item.id for item in judged.items] == ["kept", "a", "b"]
    assert judged.left_out == {
        "novels": {"fewer than 4 chunks": 2, "no gold chunk": 1, "no distractor": 1},
        "other": {"fewer than 4 chunks": 1},
        "x": {"beyond the first 2": 1},
    }


def test_two_items_with_one_id_are_refused() -> None:
    rankable_items([make_item("a"), make_item("a", source="other")])
    with pytest.raises(DataError, match="id 'a' of source 'novels' appears twice"):
        rankable_items([make_item("a"), make_item("a")])


def test_content_hash_tells_apart_all_that_a_system_sees() -> None:
    chunks = [Chunk("a", "t"), Chunk("b\ud800")]
    same = [Chunk("a", "t", id="x", metadata={"k": 1}), Chunk("b\ud800")]
    assert content_hash("q", chunks) == content_hash("q", same)
    others = [
        content_hash("Q", chunks),
        content_hash("q", chunks[::-1]),
        content_hash("q", [Chunk("at"), chunks[1]]),
        content_hash("q", [Chunk("a", ""), chunks[1]]),
        content_hash("q", chunks[:1]),
    ]
    assert len({content_hash("q", chunks), *others}) == 6


def test_items_cluster_by_gold_passage_page_and_chunk_set_within_a_source() -> None:
    first = make_item("0", title="Emma")
    same_page = make_item("1", title=" EMMA")
    alone = make_item("2", title="Persuasion")
    same_passage = make_item("3")
    same_passage = replace(same_passage, chunks=(alone.chunks[0], *same_passage.chunks[1:]))
    other_gold_of_same_set = replace(
        alone, id="4", labels=(False, True, False, False), chunks=alone.chunks[::-1]
    )
    other_source = replace(first, id="5", source="other")
    shares_a_distractor = replace(
        make_item("6"),
        chunks=(*make_item("6").chunks, first.chunks[1]),
        labels=(True,) + 4 * (False,),
    )
    items = [first, same_page, alone, same_passage, other_gold_of_same_set, other_source]
    assert item_clusters([*items, shares_a_distractor]) == [0, 0, 1, 1, 1, 2, 3]


def test_titles_that_many_items_have_name_no_page() -> None:
    tables = [make_item(str(index), title="Table") for index in range(11)]
    assert len(set(item_clusters(tables))) == 11
    assert len(set(item_clusters(tables[:10]))) == 1
    # Eleven of 110 are a tenth, which still counts as a page.
    others = [make_item(f"o{index}") for index in range(99)]
    assert len(set(item_clusters([*tables, *others]))) == 100
    assert len(set(item_clusters([*tables, *others[1:]]))) == 109
