"""Scores kept on disk as they are made, so that a killed run goes on where it stopped.

One JSON Lines file a system and its settings; a line holds an item's content hash and the scores.
A different setting is another file and a different item another hash, so nothing stale is ever
found. Lines are only appended; one torn by a kill is cut off on the next start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from at2_rag_evals.line_log import append_line, read_lines
from at2_rag_evals.rankers.base import ChunkScores


class Scorer(Protocol):
    """A system whose scores are stored; every `Ranker` is one."""

    @property
    def name(self) -> str:
        """What the report calls the system."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """All that decides the scores besides the item, as JSON-ready values."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """A system's scores of one item.

    Attributes:
        result: The scores.
        seconds: How long scoring took.
    """

    result: ChunkScores
    seconds: float


class ScoreStore:
    """The scores of one system under one set of settings.

    Args:
        scorer: The system.
        folder: Where the file is; None to remember for this run only.

    Items are found by their content hash, as in a dictionary.
    """

    def __init__(self, scorer: Scorer, folder: Path | None) -> None:
        self._items: dict[str, ScoredItem] = {}
        self._path = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{scorer.name}-{settings_key(scorer)[:16]}.jsonl"
            read_lines(self._path, self._take)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def __getitem__(self, key: str) -> ScoredItem:
        return self._items[key]

    def add(self, key: str, item: ScoredItem) -> None:
        """Keep an item's scores; on disk before this returns."""
        self._items[key] = item
        if self._path is not None:
            append_line(self._path, _to_record(key, item))

    def _take(self, record: Any) -> None:
        key, item = _from_record(record)
        self._items[key] = item


def settings_key(scorer: Scorer) -> str:
    """Return a SHA-256 over a system's name and settings."""
    settings = json.dumps([scorer.name, dict(scorer.settings)], sort_keys=True)
    return hashlib.sha256(settings.encode("ascii")).hexdigest()


def _to_record(key: str, item: ScoredItem) -> Mapping[str, object]:
    return {
        "item": key,
        "scores": list(item.result.scores),
        "truncated": item.result.truncated,
        "seconds": item.seconds,
    }


def _from_record(record: Any) -> tuple[str, ScoredItem]:
    scores = tuple(float(score) for score in record["scores"])
    result = ChunkScores(scores, int(record["truncated"]))
    return str(record["item"]), ScoredItem(result, float(record["seconds"]))
