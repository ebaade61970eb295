"""Small labelled items, and systems with planted scores, for the tests of the evals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.rankers import ItemScores, Ranker


def make_item(
    id: str,
    gold: str = "g---",
    *,
    source: str = "novels",
    answers: Sequence[str] = (),
    title: str | None = None,
) -> Example:
    """Make an item whose chunks are gold where `gold` has a "g"; no text appears in two items."""
    return Example(
        id=id,
        source=source,
        query=f"What is {id}?",
        chunks=tuple(
            Chunk(f"{source} {id} passage {index}", title if mark == "g" else None)
            for index, mark in enumerate(gold)
        ),
        labels=tuple(mark == "g" for mark in gold),
        answers=tuple(answers),
    )


def write_items(path: Path, items: Sequence[Example]) -> Path:
    """Write items as the evals read them."""
    records = [
        {
            "id": item.id,
            "source": item.source,
            "question": item.query,
            "answers": list(item.answers),
            "chunks": [
                {"title": chunk.title, "text": chunk.text, "is_gold": label}
                for chunk, label in zip(item.chunks, item.labels, strict=True)
            ],
        }
        for item in items
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


class CountingRanker(Ranker):
    """Scores chunks by the length of their text and counts how often it is loaded and asked.

    Args:
        fail_after: Number of calls after which it raises, as a killed run stops; None for never.
    """

    name = "counting"

    def __init__(self, *, version: int = 1, fail_after: int | None = None) -> None:
        self.settings = {"version": version}
        self.calls = 0
        self.prepared = 0
        self._fail_after = fail_after

    def prepare(self) -> None:
        self.prepared += 1

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        if self.calls == self._fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        return ItemScores(tuple(float(len(chunk.text)) for chunk in chunks), truncated=1)
