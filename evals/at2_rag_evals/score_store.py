"""Scores of items, kept on disk as they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from at2_rag_evals.rankers.base import ChunkScores
from at2_rag_evals.record_store import RecordStore, System


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """A system's scores of one item.

    Attributes:
        result: The scores.
        seconds: How long scoring took.
    """

    result: ChunkScores
    seconds: float


class ScoreStore(RecordStore[ScoredItem]):
    """The scores of one system under one set of settings, by the items' content hashes.

    Args:
        scorer: The system.
        folder: Where the file is; None to remember for this run only.
    """

    def __init__(self, scorer: System, folder: Path | None) -> None:
        super().__init__(scorer, folder, to_record=_to_record, from_record=_from_record)


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
