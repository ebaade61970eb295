"""Trimmed texts, kept on disk as they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from at2_rag_evals.record_store import RecordStore, System


@dataclass(frozen=True, slots=True)
class TrimmedText:
    """What is left of a chunk.

    Attributes:
        text: Title and text.
        seconds: How long trimming took.
    """

    text: str
    seconds: float


class TextStore(RecordStore[TrimmedText]):
    """The texts of one system under one set of settings, by hash of question and chunk.

    Args:
        system: The system.
        folder: Where the file is; None to remember for this run only.
    """

    def __init__(self, system: System, folder: Path | None) -> None:
        super().__init__(system, folder, to_record=_to_record, from_record=_from_record)


def _to_record(key: str, text: TrimmedText) -> Mapping[str, object]:
    return {"chunk": key, **asdict(text)}


def _from_record(record: Any) -> tuple[str, TrimmedText]:
    text = TrimmedText(str(record["text"]), float(record["seconds"]))
    return str(record["chunk"]), text
