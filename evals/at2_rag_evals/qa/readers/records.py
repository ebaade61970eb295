"""JSON from outside, checked as it is taken apart."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from at2_rag.errors import DataError

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Record:
    """An object of a file, with where it is.

    Attributes:
        values: The object.
        place: File and line or path inside it, for messages.
    """

    values: dict[str, Any]
    place: str

    def text(self, key: str, *, default: str | None = None) -> str:
        """Return a string; numbers are taken as they are written.

        Raises:
            DataError: If it is missing and has no default, or is something else.
        """
        value = self.values.get(key, _MISSING)
        if value is _MISSING or (value is None and default is not None):
            if default is None:
                raise self._missing(key)
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise DataError(f"{self.place}: {key!r} is {value!r:.80}; expected a string")
        return str(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a truth value.

        Raises:
            DataError: If it is something else.
        """
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise DataError(f"{self.place}: {key!r} is {value!r:.80}; expected true or false")
        return value

    def items(self, key: str, *, optional: bool = False) -> list[Any]:
        """Return a list.

        Raises:
            DataError: If it is missing and not optional, or is something else.
        """
        value = self.values.get(key, _MISSING)
        if optional and (value is _MISSING or value is None):
            return []
        if value is _MISSING:
            raise self._missing(key)
        if not isinstance(value, list):
            raise DataError(f"{self.place}: {key!r} is a {type(value).__name__}; expected a list")
        return value

    def texts(self, key: str, *, optional: bool = False) -> list[str]:
        """Return a list of strings.

        Raises:
            DataError: If it is missing and not optional, or is something else.
        """
        values = self.items(key, optional=optional)
        if not all(isinstance(value, str) for value in values):
            raise DataError(f"{self.place}: {key!r} is {values!r:.80}; expected strings")
        return values

    def records(self, key: str, *, optional: bool = False) -> list[Record]:
        """Return a list of objects.

        Raises:
            DataError: If it is missing and not optional, or is something else.
        """
        values = self.items(key, optional=optional)
        return [
            as_record(value, f"{self.place}: {key}[{place}]") for place, value in enumerate(values)
        ]

    def _missing(self, key: str) -> DataError:
        keys = ", ".join(sorted(self.values)) or "none"
        return DataError(f"{self.place}: the key {key!r} is missing (its keys: {keys})")


def as_record(value: Any, place: str) -> Record:
    """Return an object with its place.

    Raises:
        DataError: If it isn't one.
    """
    if not isinstance(value, dict):
        raise DataError(f"{place}: a JSON {type(value).__name__}; expected an object")
    return Record(value, place)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, gzipped or not.

    Raises:
        DataError: If it can't be read as such.
    """
    try:
        return json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error


def read_json_lines(path: Path) -> Iterator[Record]:
    """Yield the objects of a JSON Lines file, gzipped or not; blank lines are passed over.

    Raises:
        DataError: If it can't be read as such.
    """
    for number, line in enumerate(_content(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON ({error})") from error
        yield as_record(value, place)


def read_lines_of(path: Path) -> list[str]:
    """Return a text file's lines, gzipped or not.

    Raises:
        DataError: If it can't be read.
    """
    return _content(path).splitlines()


def _content(path: Path) -> str:
    try:
        data = path.read_bytes()
        content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error})") from error
