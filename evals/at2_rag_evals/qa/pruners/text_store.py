"""Trimmed texts kept on disk as they are made, so that a killed run goes on where it stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from at2_rag_evals.line_log import append_line, read_lines
from at2_rag_evals.score_store import Scorer, settings_key


@dataclass(frozen=True, slots=True)
class TrimmedText:
    """What is left of a chunk.

    Attributes:
        text: Title and text.
        seconds: How long trimming took.
    """

    text: str
    seconds: float


class TextStore:
    """The texts of one system under one set of settings, by hash of question and chunk.

    Args:
        system: The system.
        folder: Where the file is; None to remember for this run only.
    """

    def __init__(self, system: Scorer, folder: Path | None) -> None:
        self._texts: dict[str, TrimmedText] = {}
        self._path = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{system.name}-{settings_key(system)[:16]}.jsonl"
            read_lines(self._path, self._take)

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def __getitem__(self, key: str) -> TrimmedText:
        return self._texts[key]

    def add(self, key: str, text: TrimmedText) -> None:
        """Keep a text; on disk before this returns."""
        self._texts[key] = text
        if self._path is not None:
            append_line(self._path, {"chunk": key, **asdict(text)})

    def _take(self, record: Any) -> None:
        text = TrimmedText(str(record["text"]), float(record["seconds"]))
        self._texts[str(record["chunk"])] = text
