"""Results: what a pruning returns, as values and as JSON."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import json
import math
import pickle
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag import Chunk, InputError, PruneResult, ScoredChunk, ScoredSentence


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
        sentences=(ScoredSentence(2, 0, 1, "b", 0.5, 0.25),),
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
        "sentences": [
            {"chunk_index": 2, "start": 0, "end": 1, "score": 0.5, "probability": 0.25},
        ],
    }
    assert made.to_dict() == expected
    assert strictly(made.to_json()) == expected
    assert strictly(made.to_json(indent=2)) == expected
    assert "\n  " in made.to_json(indent=2)


def test_values_can_be_copied_pickled_and_made_mappings() -> None:
    chunk = Chunk("a", metadata={"page": [1]})
    made = result(
        ScoredChunk(chunk, 0.5, 0, "a"), timings=MappingProxyType({"total": 0.25}), notes=("n",)
    )
    for value in (chunk, made.kept[0], made, PruneResult("q", (), (), 0, 0)):
        assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
        assert dataclasses.asdict(value).keys() == {f.name for f in dataclasses.fields(value)}
    timings = {"total": 0.25}
    copied = result(timings=timings)
    timings["total"] = 9.0
    assert copied.timings == {"total": 0.25}
    shown = dataclasses.asdict(made)
    assert shown["kept"][0]["chunk"]["metadata"] == {"page": [1]}
    assert shown["timings"] == {"total": 0.25}


def test_values_can_be_members_of_sets() -> None:
    chunks = [Chunk("a", metadata={"page": [1]}), Chunk("a", metadata={}), Chunk("a"), Chunk("b")]
    assert len(set(chunks)) == 3, "metadata still tells chunks apart"
    scored = [ScoredChunk({"text": "a"}, 0.5, n % 2, "a") for n in range(4)]
    assert len(set(scored)) == 2
    assert len({result(*scored[:2]), result(*scored[2:]), result()}) == 2


def test_the_retrievers_score_and_index_are_not_lost_in_json() -> None:
    chunk = {"text": "a", "score": 0.87, "index": 41, "rank": 3}
    assert ScoredChunk(chunk, 1.5, 0, "a").to_dict() == {
        "index": 0,
        "score": 1.5,
        "title": None,
        "text": "a",
        "rank": 3,
        "original": {"score": 0.87, "index": 41},
    }
    chunk |= {"original": "mine"}
    hidden = ScoredChunk(chunk, 1.5, 0, "a").to_dict()["original"]
    assert hidden == {"score": 0.87, "index": 41, "original": "mine"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.25), 0.25),
        (np.float16("inf"), None),
        (np.longdouble(2), 2.0),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan]], dtype=np.float32), [[1.0, None]]),
        (np.array(3), 3),
        (np.datetime64("2020-01-02", "ns"), "2020-01-02T00:00:00.000000000"),
        (torch.tensor([0.5, 2.0], dtype=torch.bfloat16), [0.5, 2.0]),
        ({np.int64(1): (np.float32(0.5),)}, {"1": [0.5]}),
        (10**400, 10**400),
        (10**5000, hex(10**5000)),
        ({10**5000: 1}, {hex(10**5000): 1}),
        (decimal.Decimal("1.50"), "1.50"),
    ],
    ids=range(14),
)
def test_metadata_keeps_its_kind_in_json(value: Any, expected: Any) -> None:
    for chunk in ({"text": "a", "x": value}, Chunk("a", metadata={"x": value})):
        [shown] = strictly(result(ScoredChunk(chunk, 0.0, 0, "a")).to_json())["kept"]
        written = shown["metadata"]["x"] if isinstance(chunk, Chunk) else shown["x"]
        assert written == expected and type(written) is type(expected)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def test_metadata_that_never_ends_or_has_no_text() -> None:
    def text(value: Any) -> str:
        return result(ScoredChunk({"text": "a", "x": value}, 0.0, 0, "a")).to_json()

    deep: list[Any] = []
    for _ in range(180):
        deep = [deep]
    assert strictly(text(deep))["kept"][0]["x"] == deep
    itself: dict[str, Any] = {}
    itself["me"] = itself
    for _ in range(5000):
        deep = [deep]
    for endless in (itself, deep):
        with pytest.raises(InputError, match="more than 200 levels deep, or holds itself"):
            text(endless)
    assert "Unprintable object at" in strictly(text(Unprintable()))["kept"][0]["x"]
    odd = Chunk("a", metadata=None)  # type: ignore[arg-type]
    [shown] = strictly(result(ScoredChunk(odd, 0.0, 0, "a")).to_json())["kept"]
    assert shown["metadata"] is None


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
        pytest.param(Opaque(), "<opaque>", id="opaque"),
        (-math.inf, None),
        (np.float64("nan"), None),
        (MappingProxyType({"a": [math.inf]}), {"a": [None]}),
        ({("a", 1): 2, 3: 4}, {"('a', 1)": 2, "3": 4}),
        ("lone \ud800", "lone \ud800"),
    ],
    ids=repr,
)
def test_metadata_that_json_cannot_hold(value: Any, shown: Any) -> None:
    for chunk in (Chunk("a", metadata={"v": value}), {"text": "a", "metadata": {"v": value}}):
        made = result(ScoredChunk(chunk, 0.0, 0, "a"))
        assert strictly(made.to_json())["kept"][0]["metadata"] == {"v": shown}
