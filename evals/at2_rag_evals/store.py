"""Results of an eval, stored one by one in an SQLite file, so that a killed run goes on.

A result is looked up by the system that made it, the system's settings and a key of its input, such
as an item's content hash: whatever changes a result changes one of the three.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from at2_rag.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Result = TypeVar("Result", bound="DataclassInstance")

STORE_FILE = "store.sqlite"
"""Name of the store in a run's output folder."""

_WAIT_SECONDS = 60.0
_TABLE = """
    CREATE TABLE IF NOT EXISTS results (
        namespace TEXT NOT NULL,
        key TEXT NOT NULL,
        result TEXT NOT NULL,
        PRIMARY KEY (namespace, key)
    ) WITHOUT ROWID
"""


class System(Protocol):
    """Whatever has a name and settings (all that decides its results besides their input)."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    @property
    def settings(self) -> Mapping[str, object]:
        """JSON-ready values."""


class Store(Generic[Result]):
    """The results of one system under one set of settings, by key.

    A result is in the file as soon as it is set. Several processes may share a file; the later of
    two results under one key stays.

    Args:
        path: The SQLite file, made if it doesn't exist; None to keep results in memory.
        namespace: Separates these results from others in the file: usually `settings_key(system)`.
        make: The results' dataclass, with fields of JSON-ready values and tuples of them.

    Raises:
        InputError: If the file exists and isn't an SQLite database.
    """

    def __init__(self, path: Path | None, namespace: str, make: Callable[..., Result]) -> None:
        self._database = _connect(path)
        weakref.finalize(self, self._database.close)
        self._namespace, self._make = namespace, make

    def __len__(self) -> int:
        query = "SELECT COUNT(*) FROM results WHERE namespace = ?"
        return int(self._database.execute(query, (self._namespace,)).fetchone()[0])

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __getitem__(self, key: str) -> Result:
        result = self.get(key)
        if result is None:
            raise KeyError(key)
        return result

    def get(self, key: str) -> Result | None:
        """Return the result under a key; None if there is none."""
        query = "SELECT result FROM results WHERE namespace = ? AND key = ?"
        row = self._database.execute(query, (self._namespace, key)).fetchone()
        return None if row is None else self._make(**_with_tuples(json.loads(row[0])))

    def __setitem__(self, key: str, result: Result) -> None:
        statement = "INSERT OR REPLACE INTO results VALUES (?, ?, ?)"
        self._database.execute(statement, (self._namespace, key, json.dumps(asdict(result))))


def settings_key(system: System) -> str:
    """Return a system's name and a hash over its name and settings."""
    return f"{system.name} {hash_of([system.name, dict(system.settings)])[:16]}"


def hash_of(values: object) -> str:
    """Return a SHA-256 over JSON-ready values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("ascii")).hexdigest()


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path or ":memory:", timeout=_WAIT_SECONDS, isolation_level=None)
    try:
        # Results survive a killed process without waiting for the disk, but not a power cut. Not
        # WAL: processes that open a new file at the same time fail to switch to it ("locked").
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_TABLE)
    except sqlite3.DatabaseError as error:
        database.close()
        raise InputError(
            f"{path} can't be used as a store of results ({error}); move it away or choose another "
            "output folder"
        ) from error
    return database


def _with_tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
