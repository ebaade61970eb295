"""Rows of numbers, read shard by shard and kept, so that a killed run goes on where it stopped.

A folder holds `collection.json`, the settings that decide the content, and one file a shard,
`shard-00000.safetensors` and so on. A shard is written under a temporary name and renamed when
whole. Its header holds a hash of the settings, a hash of the content, and why items were left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from at2_rag.errors import DataError, InputError, StorageError
from at2_rag.files import remove_leftovers, write_whole

FORMAT = 5  # of the files, and of what rows hold: a collection of another format is refused
SETTINGS_FILE = "collection.json"
TOO_LONG = "longer than the model's window"  # why an item gives no row
_METADATA = "at2_rag"  # one key only: safetensors doesn't keep the order of several

Row: TypeAlias = Mapping[str, npt.NDArray[Any]]  # what was read of one item, by name


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """What a collection holds."""

    rows: Mapping[int, Row]  # in the order of the shards
    left_out: Mapping[int, str]  # for each item without a row, why

    @property
    def reasons(self) -> dict[str, int]:
        """How many items were left out, by reason."""
        return dict(sorted(Counter(self.left_out.values()).items()))


class Collection:
    """Rows kept in a folder; a subclass says what is read of an item.

    `settings` are JSON-ready values that decide the content; `identity` is their SHA-256. A killed
    run goes on after its last whole shard. `left_out` says why items are in no shard.
    """

    remedy = "pass others"  # what to do if no item gives a row

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        shards: Sequence[Sequence[int]],
        *,
        left_out: Mapping[int, str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._shards, self._left_out = shards, left_out or {}
        self._settings: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **settings}))
        text = json.dumps(self._settings, sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()

    def read_shard(self, items: Sequence[int], executor: Executor) -> Iterable[Row | str]:
        """Return what `read` returns for each item; called with the items of one shard."""
        return executor.map(self.read, items)

    def read(self, item: int) -> Row | str:
        """Return an item's row, or why it has none."""
        raise NotImplementedError

    def check(self) -> bool:
        """Return whether the folder holds this collection; raise DataError if it holds another."""
        path = self.folder / SETTINGS_FILE
        try:
            if not path.exists():
                if shards := self._shards_written:
                    raise DataError(
                        f"{self.folder} holds {shards} shards but no {SETTINGS_FILE}, so it isn't "
                        "known what they are of; put that file back, remove the shards, or use "
                        "another folder"
                    )
                return False
        except OSError:  # no folder; writing there will say so
            return False
        stored, wanted = _read_settings(path), self._settings
        changes = ", ".join(
            f"{name}: {stored.get(name)!r} there, {wanted.get(name)!r} now"
            for name in sorted({*stored, *wanted})
            if stored.get(name) != wanted.get(name)
        )
        if changes:
            raise DataError(
                f"{self.folder} holds what was collected with other settings ({changes}); "
                "use another folder, or remove this one"
            )
        return True

    def parts(self) -> Iterator[Collection]:
        """Yield the collections that this one goes on from, and itself last.

        Ask for the next once the one before is whole.
        """
        yield self

    def collect(
        self,
        *,
        workers: int = 1,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Collected:
        """Return the rows of all items, reading only the shards that the folder doesn't hold.

        `progress` is called with the number of items done and in all. For `workers` see
        `read_shards`.
        """
        rows, missing = self._stored()
        done, total = len(rows), sum(map(len, self._shards))
        progress(done, total)
        rows |= self.read_shards(
            missing, workers=workers, progress=lambda read: progress(done + read, total)
        )
        everything = {item: rows[item] for items in self._shards for item in items}
        everything |= self._left_out
        collected = Collected(*_sort_out(everything))
        if not collected.rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in collected.reasons.items())
            raise InputError(
                f"none of the {len(everything)} examples can be read ({reasons}); {self.remedy}"
            )
        return collected

    def missing_shards(self) -> list[int]:
        """Return the numbers of the shards that the folder doesn't hold."""
        return self._stored()[1]

    def read_shards(
        self,
        numbers: Sequence[int],
        *,
        workers: int = 1,
        progress: Callable[[int], None] = lambda done: None,
    ) -> dict[int, Row | str]:
        """Read shards into the folder, and return what `read` does of each of their items.

        Processes may read other shards of the same folder meanwhile. As many `workers` as there are
        cores, with one torch thread each, read about twice as much as one with all of them.
        `progress` is called with the number of items read.
        """
        self._begin()
        read: dict[int, Row | str] = {}
        with ThreadPoolExecutor(workers) as executor:
            for number in numbers:
                items, rows = self._shards[number], dict[int, Row | str]()
                for item, row in zip(items, self.read_shard(items, executor), strict=True):
                    rows[item] = row
                    progress(len(read) + len(rows))
                self._write(_name(number), self._pack(rows))
                read |= rows
        return read

    def _begin(self) -> None:
        """Write the settings, or check that those in the folder are the same."""
        if not any(self._shards):
            return
        if self.check():
            remove_leftovers(self.folder)
        else:
            settings = json.dumps(self._settings, indent=2, sort_keys=True)
            self._write(SETTINGS_FILE, settings.encode())

    def _stored(self) -> tuple[dict[int, Row | str], list[int]]:
        """Return the rows that the folder holds, and the numbers of the shards that it doesn't."""
        self._begin()
        stored: dict[int, Row | str] = {}
        missing = []
        for number, items in enumerate(self._shards):
            rows = self._read(number, items)
            if rows is None:
                missing.append(number)
            else:
                stored |= rows
        return stored, missing

    @property
    def _shards_written(self) -> int:
        return len(list(self.folder.glob("shard-*.safetensors")))

    def _read(self, number: int, items: Sequence[int]) -> dict[int, Row | str] | None:
        """Return the rows of a shard; None if it is missing or damaged."""
        path = self.folder / _name(number)
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # not read yet, or another run is replacing it
            return None
        except OSError as error:
            raise StorageError(
                f"{path} can't be read ({error.strerror or error}); remove it or use another folder"
            ) from error
        try:
            arrays = load(data)
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_METADATA])
            rows: dict[int, Any] = {int(item): why for item, why in header["left_out"].items()}
            for key, values in arrays.items():
                item, _, name = key.partition(".")
                rows.setdefault(int(item), {})[name] = values
        except (SafetensorError, TypeError, ValueError, KeyError, RecursionError):
            return None
        if header["content"] != _content_hash(arrays):
            return None
        if header["settings"] != self.identity or set(rows) != set(items):
            raise DataError(
                f"{path} is of another collection than {SETTINGS_FILE} beside it says; remove it, "
                "and a rerun makes it anew"
            )
        return {item: rows[item] for item in items}

    def _pack(self, rows: Mapping[int, Row | str]) -> bytes:
        """Return the content of a shard's file; its arrays are named "item.name"."""
        read, left_out = _sort_out(rows)
        arrays = {
            f"{item}.{name}": np.ascontiguousarray(values)
            for item, row in read.items()
            for name, values in row.items()
        }
        header = {
            "settings": self.identity,
            "content": _content_hash(arrays),
            "left_out": left_out,
        }
        return save(arrays, {_METADATA: json.dumps(header, sort_keys=True)})

    def _write(self, name: str, data: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / name, data)
        except OSError as error:
            raise StorageError(
                f"{self.folder / name} can't be written ({error}); the {self._shards_written} "
                "shards written before are kept and a rerun goes on from there: make room on that "
                "disk, or move the folder to another one"
            ) from error


def split_evenly(items: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return shards of `size` items each, in order; the last may have fewer."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def reading_depth(wanted: int, folders: Iterable[str | Path], *, layers: int) -> int:
    """Return how many of the model's layers to read to go on with collections of more layers."""
    depths = [wanted]
    for folder in folders:
        with suppress(OSError, DataError):  # `Collection.check` says what is wrong
            depth = _read_settings(Path(folder) / SETTINGS_FILE).get("depth")
            if isinstance(depth, int) and depth <= layers:
                depths.append(depth)
    return max(depths)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} holds no settings ({error}); remove its folder, or use another"
        ) from error
    return settings


def _name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _sort_out(rows: Mapping[int, Row | str]) -> tuple[dict[int, Row], dict[int, str]]:
    """Return the rows, and why there are no others."""
    read = {item: row for item, row in rows.items() if not isinstance(row, str)}
    return read, {item: reason for item, reason in rows.items() if isinstance(reason, str)}


def _content_hash(arrays: Row) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
