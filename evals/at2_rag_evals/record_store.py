"""What systems made of items, kept on disk as it is made, so that a killed run goes on.

One JSON Lines file a system and its settings; a line holds a key, such as an item's content hash,
and what was made. A different setting is another file and a different item another key, so nothing
stale is ever found. Lines are only appended; one torn by a kill is cut off on the next start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from at2_rag_evals.line_log import append_line, read_lines

Made = TypeVar("Made")


class System(Protocol):
    """Whatever is bound to its settings: a `Ranker`, a `Pruner`, a `Generator`."""

    @property
    def name(self) -> str:
        """What the report calls the system."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """All that decides what it makes besides what it is given, as JSON-ready values."""
        ...


class RecordStore(Generic[Made]):
    """What one system made under one set of settings, found by key as in a dictionary.

    Args:
        system: The system.
        folder: Where the file is; None to remember for this run only.
        to_record: Makes a key and what belongs to it a line of JSON.
        from_record: Reads such a line; raises ValueError, KeyError or TypeError for one it can't
            use.
    """

    def __init__(
        self,
        system: System,
        folder: Path | None,
        *,
        to_record: Callable[[str, Made], Mapping[str, object]],
        from_record: Callable[[Any], tuple[str, Made]],
    ) -> None:
        self._made: dict[str, Made] = {}
        self._to_record, self._from_record = to_record, from_record
        self._path = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{system.name}-{settings_key(system)[:16]}.jsonl"
            read_lines(self._path, self._take)

    def __len__(self) -> int:
        return len(self._made)

    def __contains__(self, key: str) -> bool:
        return key in self._made

    def __getitem__(self, key: str) -> Made:
        return self._made[key]

    def add(self, key: str, made: Made) -> None:
        """Keep what was made; on disk before this returns."""
        self._made[key] = made
        if self._path is not None:
            append_line(self._path, self._to_record(key, made))

    def _take(self, record: Any) -> None:
        key, made = self._from_record(record)
        self._made[key] = made


def settings_key(system: System) -> str:
    """Return a SHA-256 over a system's name and settings."""
    settings = json.dumps([system.name, dict(system.settings)], sort_keys=True)
    return hashlib.sha256(settings.encode("ascii")).hexdigest()
