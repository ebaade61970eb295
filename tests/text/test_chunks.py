"""What goes in and what comes out: chunks, their normalised view, results and their JSON."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import json
import math
import pickle
from collections import UserDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from at2_rag.errors import AT2Error, ChunkTypeError, InputError
from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk, as_chunk, replace_surrogates

# --- chunks ----------------------------------------------------------------------------------


def test_a_string_is_its_text() -> None:
    assert as_chunk(" as it is\n", 0) == Chunk(text=" as it is\n")


def test_a_chunk_is_taken_as_it_is() -> None:
    chunk = Chunk("text", title="title", id="x", metadata={"a": 1})
    assert as_chunk(chunk, 0) is chunk


@pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
def test_a_mapping_gives_its_known_keys(kind: Any) -> None:
    given = {"text": "a", "title": "t", "id": 7, "metadata": {"page": 3}, "score": 0.5}
    value: Mapping[str, Any] = kind(given)
    chunk = as_chunk(value, 0)
    assert (chunk.text, chunk.title, chunk.id, chunk.metadata) == ("a", "t", "7", {"page": 3})
    assert chunk.metadata is given["metadata"]


def test_a_mapping_needs_a_text_only() -> None:
    assert as_chunk({"text": ""}, 0) == Chunk("")
    assert as_chunk({"text": "a", "title": None, "id": None, "metadata": None}, 0) == Chunk("a")
    assert as_chunk({"text": "a", "metadata": "odd"}, 0).metadata == {}


@pytest.mark.parametrize(
    ("title", "rendered"),
    [
        ("Emma", "Emma\ntext"),
        (None, "text"),
        ("", "text"),
        (" \n", "text"),
        (" Emma ", " Emma \ntext"),
    ],
)
def test_the_title_stands_on_a_line_of_its_own(title: str | None, rendered: str) -> None:
    assert Chunk("text", title=title).rendered == rendered
    assert ScoredChunk("any", 0.0, 0, "text", title).rendered == rendered


@pytest.mark.parametrize(
    "value", [5, None, b"a", ["a"], {"txt": "a"}, {"text": 5}, {"text": "a", "title": 5}]
)
def test_what_is_no_text_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(ChunkTypeError, match="chunk 41 ") as error:
        as_chunk(value, 41)
    kinds = (AT2Error, InputError, TypeError, ValueError)
    assert all(isinstance(error.value, kind) for kind in kinds)


def test_values_cannot_be_changed() -> None:
    for value in (Chunk("a"), ScoredChunk("a", 0.0, 0, "a"), PruneResult("q", (), (), 0, 0)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, "b")
        assert not hasattr(value, "__dict__")


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


# --- results ---------------------------------------------------------------------------------


def result(*kept: ScoredChunk, dropped: tuple[ScoredChunk, ...] = (), **fields: Any) -> PruneResult:
    return PruneResult("who?", kept, dropped, 20, 7, **fields)


def strictly(text: str) -> Any:
    """Parse JSON as the standard has it, without Python's NaN and Infinity."""

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    assert text.isascii()
    return json.loads(text, parse_constant=refuse)


def test_texts_and_context_of_what_was_kept() -> None:
    kept = (ScoredChunk("b", 2.0, 1, "b", "B"), ScoredChunk("a", 1.0, 0, "a"))
    dropped = (ScoredChunk("c", 0.0, 2, "c"),)
    assert result(*kept, dropped=dropped).texts == ("b", "a")
    assert result(*kept, dropped=dropped).context == "B\nb\n\na"
    assert result(*kept, separator=" | ").context == "B\nb | a"
    assert result(dropped=dropped).context == ""


def test_json_holds_all_of_the_result() -> None:
    mapping = {"text": "a", "title": "A", "id": 7, "metadata": {"page": [1]}, "url": "x", 5: "y"}
    kept = ScoredChunk(mapping, 0.5, 0, "a", "A")
    chunk = ScoredChunk(Chunk("b", id="i", metadata={"k": None}), -1.0, 2, "b")
    string = ScoredChunk("c", 0.0, 1, "c")
    made = result(
        kept,
        dropped=(chunk, string),
        timings=MappingProxyType({"total": 0.25}),
        notes=("A note.",),
        error="why",
    )
    expected = {
        "query": "who?",
        "kept": [
            {
                "index": 0,
                "score": 0.5,
                "title": "A",
                "text": "a",
                "id": 7,
                "metadata": {"page": [1]},
                "url": "x",
                "5": "y",
            }
        ],
        "dropped": [
            {
                "index": 2,
                "score": -1.0,
                "title": None,
                "text": "b",
                "id": "i",
                "metadata": {"k": None},
            },
            {"index": 1, "score": 0.0, "title": None, "text": "c"},
        ],
        "context": "A\na",
        "separator": "\n\n",
        "tokens_before": 20,
        "tokens_after": 7,
        "timings": {"total": 0.25},
        "notes": ["A note."],
        "error": "why",
        "skipped": False,
        "answerable": None,
    }
    assert made.to_dict() == expected
    assert strictly(made.to_json()) == expected
    assert strictly(made.to_json(indent=2)) == expected
    assert "\n  " in made.to_json(indent=2)


def test_json_holds_the_context_as_it_is_joined() -> None:
    kept = (ScoredChunk("b", 2.0, 1, "b", "B"), ScoredChunk("a", 1.0, 0, "a"))
    shown = strictly(result(*kept, separator=" | ").to_json())
    assert (shown["context"], shown["separator"]) == ("B\nb | a", " | ")
    assert strictly(result().to_json())["context"] == ""


def test_values_can_be_copied_pickled_and_made_mappings() -> None:
    chunk = Chunk("a", metadata={"page": [1]})
    made = result(
        ScoredChunk(chunk, 0.5, 0, "a"), timings=MappingProxyType({"total": 0.25}), notes=("n",)
    )
    for value in (chunk, made.kept[0], made, PruneResult("q", (), (), 0, 0)):
        assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
        assert dataclasses.asdict(value).keys() == {f.name for f in dataclasses.fields(value)}
    shown = dataclasses.asdict(made)
    assert shown["kept"][0]["chunk"]["metadata"] == {"page": [1]}
    assert shown["timings"] == {"total": 0.25}


def test_the_timings_are_the_results_own() -> None:
    timings = {"total": 0.25}
    made = result(timings=timings)
    timings["total"] = 9.0
    assert made.timings == {"total": 0.25}


def test_values_can_be_members_of_sets() -> None:
    given = [Chunk("a", metadata={"page": [1]}), Chunk("a", metadata={}), Chunk("a"), Chunk("b")]
    assert len(set(given)) == 3, "metadata still tells chunks apart"
    scored = [ScoredChunk({"text": "a"}, 0.5, n % 2, "a") for n in range(4)]
    assert len(set(scored)) == 2
    assert len({result(*scored[:2]), result(*scored[2:]), result()}) == 2


def test_a_retrievers_own_score_and_index_are_not_lost_in_json() -> None:
    chunk = {"text": "a", "score": 0.87, "index": 41, "rank": 3}
    assert ScoredChunk(chunk, 1.5, 0, "a").to_dict() == {
        "index": 0,
        "score": 1.5,
        "title": None,
        "text": "a",
        "rank": 3,
        "given": {"score": 0.87, "index": 41},
    }


def test_a_score_that_is_no_number_is_null() -> None:
    shown = strictly(result(ScoredChunk("a", math.nan, 0, "a")).to_json())
    assert shown["kept"][0]["score"] is None


class Opaque:
    def __str__(self) -> str:
        return "<opaque>"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime.date(1815, 12, 23), "1815-12-23"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"raw", "b'raw'"),
        ({"only"}, "{'only'}"),
        pytest.param(Opaque(), "<opaque>", id="opaque"),
        (math.nan, None),
        (-math.inf, None),
        (np.float64("nan"), None),
        (np.float64(0.5), 0.5),
        (np.int64(3), "3"),
        ((1, (2.0, None)), [1, [2.0, None]]),
        (MappingProxyType({"a": [math.inf]}), {"a": [None]}),
        ({("a", 1): 2, 3: 4}, {"('a', 1)": 2, "3": 4}),
        ("lone \ud800", "lone \ud800"),
        ({"\udfff": 1}, {"\udfff": 1}),
        ("\u2028\x00😀", "\u2028\x00😀"),
    ],
    ids=repr,
)
def test_metadata_that_json_cannot_hold(value: Any, shown: Any) -> None:
    for chunk in (Chunk("a", metadata={"v": value}), {"text": "a", "metadata": {"v": value}}):
        made = result(ScoredChunk(chunk, 0.0, 0, "a"))
        assert strictly(made.to_json())["kept"][0]["metadata"] == {"v": shown}


def test_lone_surrogates_survive_as_escapes() -> None:
    made = PruneResult("q \udc00", (ScoredChunk("\ud83d", 0.0, 0, "\ud83d"),), (), 1, 1)
    assert r"\udc00" in made.to_json() and r"\ud83d" in made.to_json()
    shown = strictly(made.to_json())
    assert (shown["query"], shown["kept"][0]["text"]) == ("q \udc00", "\ud83d")
