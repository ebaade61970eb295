"""Chunks and their normalised view."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from at2_rag.errors import AT2Error, ChunkTypeError, InputError
from at2_rag.results import ScoredChunk
from at2_rag.text.chunks import Chunk, as_chunk, replace_surrogates


def test_a_string_is_its_text_and_a_chunk_itself() -> None:
    assert as_chunk(" as it is\n", 0) == Chunk(text=" as it is\n")
    chunk = Chunk("text", title="title", id="x", metadata={"a": 1})
    assert as_chunk(chunk, 0) is chunk


@pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
def test_a_mapping_gives_its_known_keys(kind: Any) -> None:
    values = {"text": "a", "title": "t", "id": 7, "metadata": {"page": 3}, "score": 0.5}
    mapping: Mapping[str, Any] = kind(values)
    chunk = as_chunk(mapping, 0)
    assert (chunk.text, chunk.title, chunk.id, chunk.metadata) == ("a", "t", "7", {"page": 3})
    assert chunk.metadata is values["metadata"]


def test_a_mapping_needs_a_text_only() -> None:
    assert as_chunk({"text": ""}, 0) == Chunk("")
    assert as_chunk({"text": "a", "title": None, "id": None, "metadata": None}, 0) == Chunk("a")
    assert as_chunk({"text": "a", "metadata": "odd"}, 0).metadata == {}


@pytest.mark.parametrize(
    ("title", "rendered"),
    [("Emma", "Emma\ntext"), (None, "text"), (" \n", "text"), (" Emma ", " Emma \ntext")],
)
def test_the_title_stands_on_a_line_of_its_own(title: str | None, rendered: str) -> None:
    assert Chunk("text", title=title).rendered == rendered
    assert ScoredChunk("any", 0.0, 0, "text", title).rendered == rendered


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is a NoneType; pass a string"),
        ({"txt": "a", 1: 2}, r"without the key 'text' \(its keys: \['txt', 1\]\)"),
        ({"text": b"a"}, r"has a text of type bytes \(b'a'\); pass a string"),
        (Chunk("a", title=5), r"has a title of type int \(5\); pass a string or None"),  # type: ignore[arg-type]
        (Chunk("a", retrieval_score=True), r"retrieval_score of type bool \(True\); pass a number"),
        (
            {"text": "a", "retrieval_score": 10**400},
            r"retrieval_score 1000.*…, which no float holds",
        ),
        ({"text": "a", "id": 10**5000}, r"an id \(<int .*\) that can't be written as text"),
        ({"text": "a", "title": 10**5000}, r"title of type int \(<int .*\); pass a string"),
        ({10**5000: 1}, r"its keys: \[?<"),
    ],
)
def test_what_is_no_chunk_is_refused_with_its_index(value: Any, message: str) -> None:
    with pytest.raises(ChunkTypeError, match=f"chunk 41 .*{message}") as error:
        as_chunk(value, 41)
    kinds = (AT2Error, InputError, TypeError, ValueError)
    assert all(isinstance(error.value, kind) for kind in kinds)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain ☃ 😀", "plain ☃ 😀"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("", ""),
    ],
)
def test_lone_surrogates_become_replacement_characters(text: str, clean: str) -> None:
    assert replace_surrogates(text) == clean
    replace_surrogates(text).encode()
