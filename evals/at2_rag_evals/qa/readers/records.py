"""JSON from outside, checked as it is taken apart."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from at2_rag.errors import DataError
from at2_rag.files import data_lines
from at2_rag.text.chunks import Chunk


@dataclass(frozen=True, slots=True)
class Record:
    """An object of a file, taken apart by methods that check what they return.

    All raise `DataError` for a value of another type, or one that is missing and has no default.
    """

    values: dict[str, Any]
    location: str  # file and line or path inside it, for messages

    def text(self, key: str, *, default: str | None = None) -> str:
        """Return a string; numbers are taken as they are written."""
        value = self.values.get(key, default)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.unexpected(key, "a string")
        return str(value)

    def chunk(self, key: str, *, default: str | None = None) -> Chunk:
        """Return the chunk of a text and the record's title, if it has one."""
        return Chunk(self.text(key, default=default), self.text("title", default="") or None)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a truth value."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.unexpected(key, "true or false")
        return value

    def items(self, key: str, *, optional: bool = False) -> list[Any]:
        """Return a list."""
        value = self.values.get(key)
        if optional and value is None:
            return []
        if not isinstance(value, list):
            raise self.unexpected(key, "a list")
        return value

    def texts(self, key: str, *, optional: bool = False) -> list[str]:
        """Return a list of strings."""
        values = self.items(key, optional=optional)
        if not all(isinstance(value, str) for value in values):
            raise self.unexpected(key, "strings")
        return values

    def records(self, key: str, *, optional: bool = False) -> list[Record]:
        """Return a list of objects."""
        values = self.items(key, optional=optional)
        return [as_record(value, f"{self.location}: {key}[{n}]") for n, value in enumerate(values)]

    def unexpected(self, key: str, expected: str) -> DataError:
        """Return the error that a key is missing or has an unexpected value."""
        if key in self.values:
            value = self.values[key]
            return DataError(f"{self.location}: {key!r} is {value!r:.80}; expected {expected}")
        keys = ", ".join(sorted(self.values)) or "none"
        return DataError(f"{self.location}: the key {key!r} is missing (its keys: {keys})")


def as_record(value: Any, location: str) -> Record:
    """Return an object with its location.

    Raises:
        DataError: If the value is no object.
    """
    if not isinstance(value, dict):
        raise DataError(f"{location}: a JSON {type(value).__name__}; expected an object")
    return Record(value, location)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file, gzipped or not."""
    return _parse("\n".join(read_lines(path)), str(path))


def read_json_lines(path: Path) -> Iterator[Record]:
    """Yield the objects of a JSON Lines file, gzipped or not; blank lines are skipped."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            location = f"{path}, line {number}"
            yield as_record(_parse(line, location), location)


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines, gzipped or not.

    Raises:
        DataError: If it can't be read, or is larger than `MOST_DATA_BYTES`, unpacked.
    """
    try:
        return b"".join(data_lines(path)).decode("utf-8-sig").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error})") from error


def _parse(text: str, location: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{location}: not JSON ({error})") from error
