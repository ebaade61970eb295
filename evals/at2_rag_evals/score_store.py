"""Scores kept on disk as they are made, so that a killed run goes on where it stopped.

One JSON Lines file a system and its settings; a line holds an item's content hash and the scores.
A different setting is another file and a different item another hash, so nothing stale is ever
found. Lines are only appended; one torn by a kill is cut off on the next start.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from at2_rag_evals.rankers.base import ChunkScores, Ranker

_LOG = logging.getLogger(__name__)


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
        ranker: The system.
        folder: Where the file is; None to remember for this run only.

    Items are found by their content hash, as in a dictionary.
    """

    def __init__(self, ranker: Ranker, folder: Path | None) -> None:
        self._items: dict[str, ScoredItem] = {}
        self._path = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{ranker.name}-{settings_key(ranker)[:16]}.jsonl"
            self._load(self._path)

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
            with self._path.open("ab") as stream:
                stream.write(json.dumps(_to_record(key, item)).encode("ascii") + b"\n")

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        end = 0
        with path.open("rb") as stream:
            for line in stream:
                try:
                    key, item = _from_record(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                self._items[key] = item
                end += len(line)
        if end < path.stat().st_size:
            _LOG.warning("%s: cut after %d whole lines; the rest is scored again", path, len(self))
            with path.open("r+b") as stream:
                stream.truncate(end)


def settings_key(ranker: Ranker) -> str:
    """Return a SHA-256 over a system's name and settings."""
    settings = json.dumps([ranker.name, dict(ranker.settings)], sort_keys=True)
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
