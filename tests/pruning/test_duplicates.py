"""Chunks that say nothing new are dropped, and only those."""

from __future__ import annotations

import json
from typing import Any

import pytest

from at2_rag import AT2Pruner, Chunk
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "When are the warehouse and the office opened?"
TWIN = (
    "On working days the {} is opened at eight in the morning by the first of the guards, who "
    "leaves the keys with the porter, and it is closed again at six in the late evening"
)
COPY = "The bridge over the river was built in the year of the great flood."


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    return tiny_pruner(random_weights(tiny_model(), tiny_tokenizer(), "together", "apart"))


def test_twins_that_differ_in_a_word_are_kept(pruner: AT2Pruner) -> None:
    chunks = [TWIN.format("warehouse"), TWIN.format("office"), "The river flows to the sea."]
    assert len(chunks[0].split()) == 36
    ranked = sorted(pruner.score(QUERY, chunks), key=lambda one: -one.score)
    for count in (2, 3):
        result = pruner.prune(QUERY, chunks, top_k=count)
        assert [one.index for one in result.kept] == [one.index for one in ranked[:count]]
        assert result.notes == () and all(one.duplicates == () for one in result.kept)
        near = pruner.prune(QUERY, chunks, top_k=count, max_overlap=0.9)
        assert near.kept == result.kept


def test_the_note_and_the_kept_copy_name_the_dropped_ones(pruner: AT2Pruner) -> None:
    chunks: list[Any] = [
        Chunk(COPY, id="a.md", metadata={"page": 1}),
        Chunk(f" {COPY}\n", id="b.md", metadata={"page": 2}),
        {"text": COPY.replace(" ", "\n")},
        "The sea is calm.",
    ]
    result = pruner.prune(QUERY, chunks, top_p=1.0)
    first, kept = next(one for one in enumerate(result.kept) if one[1].index != 3)
    names = {0: "a.md", 1: "b.md", 2: 2}
    labels = {0: "chunk 0 ('a.md')", 1: "chunk 1 ('b.md')", 2: "chunk 2"}
    assert len(result.kept) == 2
    others = [one.index for one in result.dropped]
    assert kept.duplicates == tuple(names[index] for index in others)
    pairs = ", ".join(f"{labels[index]} (in {labels[kept.index]})" for index in others)
    assert result.notes == (f"Dropped, since all of it is kept: {pairs}.",)
    written = json.loads(result.to_json())["kept"]
    assert written[first]["duplicates"] == list(kept.duplicates)
    assert "duplicates" not in written[1 - first]
    assert len(pruner.prune(QUERY, chunks, top_p=1.0, max_overlap=None).kept) == 4


@pytest.mark.parametrize("nameless", ["", None])
def test_a_chunk_without_a_name_is_an_index_in_the_note(
    pruner: AT2Pruner, nameless: str | None
) -> None:
    result = pruner.prune(QUERY, [Chunk(COPY, id=nameless), Chunk(COPY, id=nameless)], top_k=2)
    [kept], [dropped] = result.kept, result.dropped
    assert kept.duplicates == (dropped.index,)
    note = f"Dropped, since all of it is kept: chunk {dropped.index} (in chunk {kept.index})."
    assert result.notes == (note,)


def test_many_duplicates_are_counted_not_named(pruner: AT2Pruner) -> None:
    result = pruner.prune(QUERY, [Chunk(COPY, id="\x1b[2J" * 99)] * 9, top_k=2)
    [note] = result.notes
    assert note.endswith(" and 3 more.") and "\x1b" not in note and len(note) < 999
    assert len(result.kept[0].duplicates) == 8


def test_sentences_name_the_chunks_they_are_left_out_of(pruner: AT2Pruner) -> None:
    chunks = [
        Chunk(f"{COPY} Emma came to the town much later.", id="a"),
        Chunk(f"Nobody saw the moon on that night. {COPY}", id="b"),
    ]
    result = pruner.prune(QUERY, chunks, top_p=1.0, unit="sentence")
    whole = next(one for one in result.kept if one.spans is None)
    trimmed = next(one for one in result.kept if one.spans is not None)
    assert (whole.duplicates, trimmed.duplicates) == ((chunks[trimmed.index].id,), ())
    assert repr(chunks[trimmed.index].id) in result.notes[0]


def test_a_result_field_in_the_callers_mapping_is_kept_apart(pruner: AT2Pruner) -> None:
    chunks = [{"text": COPY, "duplicates": "mine"}] * 2
    [kept] = pruner.prune(QUERY, chunks, top_k=2).to_dict()["kept"]
    assert kept["original"] == {"duplicates": "mine"} and len(kept["duplicates"]) == 1
