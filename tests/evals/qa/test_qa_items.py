"""Which items are answered: every example of a file is judged or counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from at2_rag.data.examples import Example, read_examples
from at2_rag.errors import DataError
from at2_rag_evals.qa.items import answerable_items, kind_of


def chunk(text: str = "Emma is by Jane Austen.", gold: bool = True) -> dict[str, Any]:
    return {"title": "Emma", "text": text, "is_gold": gold}


def read(tmp_path: Path, *items: dict[str, Any]) -> list[Example]:
    path = tmp_path / "novels.jsonl"
    lines = [
        {"id": str(n), "question": "who?", "answers": ["Austen"], "chunks": [chunk()], **item}
        for n, item in enumerate(items)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_examples(path, labelled=False, chunkless=True)


def test_every_example_is_judged_or_counted(tmp_path: Path) -> None:
    examples = read(
        tmp_path,
        {"chunks": [chunk(), chunk(gold=False)]},
        {"chunks": [chunk(gold=False), chunk(gold=False)]},
        {"chunks": []},
        {"chunks": [], "answers": []},
        {"answers": []},
        {"answers": ["the", "?"]},
        {"answers": ["the", "sea"], "chunks": [{"text": " "}, chunk()]},
        {"answers": [], "unanswerable": True, "chunks": [chunk(gold=False)] * 2},
        {"chunks": [chunk(), chunk("More of it.")]},
        {},
        {},
    )
    items = answerable_items(examples, limit=6)
    assert [item.id for item in items.items] == ["0", "1", "6", "7", "8", "9"]
    assert items.left_out == {"novels": {"no chunks": 2, "no answers": 2, "beyond the first 6": 1}}
    assert items.remarks == {
        "novels": {"no gold": 2, "a blank chunk": 1, "gold alone": 1, "one chunk": 1}
    }
    assert len(items.items) + sum(items.left_out["novels"].values()) == len(examples)


def test_flags_are_read_beside_the_question_or_in_meta(tmp_path: Path) -> None:
    examples = read(
        tmp_path,
        {},
        {"long_form": True},
        {"meta": {"long_form": True, "answer": "secret"}},
        {"meta": {"unanswerable": True}},
        {"unanswerable": True, "long_form": True},
        {"long_form": False, "meta": {"long_form": True}},
        {"meta": ["long_form"]},
        {"meta": {"long_form": "yes"}},
    )
    kinds = [kind_of(example) for example in examples]
    assert kinds == ["short", "long_form", "long_form", *["unanswerable"] * 2, *["short"] * 3]
    assert "secret" not in repr(examples)


def test_what_cannot_be_read_or_told_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'unanswerable' is 'no'; expected true or false"):
        read(tmp_path, {"unanswerable": "no"})
    read(tmp_path, {"chunks": []})
    with pytest.raises(DataError, match="'chunks' is empty"):
        read_examples(tmp_path / "novels.jsonl")
    with pytest.raises(DataError, match="the id 'x' of source 'novels' appears twice"):
        answerable_items(read(tmp_path, {"id": "x"}, {"id": "x"}))
