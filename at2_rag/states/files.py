"""Chunk states on disk: a file each, bounded in bytes, shared by any number of processes.

The folder is its own index, so that no index can disagree with it: a file's name is the state's
key, its size and the time of its last use are the file system's. A file is written whole or not at
all, and begins with a checksum over key and content, so that a torn, damaged or misplaced one is
found out when it is read. It is no error: what can't be read is read by the model again, and what
can't be written isn't kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load, save

from at2_rag.errors import InputError, StorageError
from at2_rag.files import remove_leftovers, write_whole
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.states.int8 import Int8State, Precision

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 20 * 2**30

_MAGIC = b"at2rag01"
_DIGEST_BYTES = 16
_ENDINGS: Mapping[Precision, str] = {"model": ".state", "int8": ".int8"}
_KEY = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(f"({_KEY.pattern})({'|'.join(map(re.escape, _ENDINGS.values()))})")
_NOTES_FILE = "folder.json"
_SLACK = 16
"""The part of the bound, one in so many, that is written before the folder is looked at again."""


@dataclass(frozen=True, slots=True)
class FolderSize:
    """What a folder of states holds.

    Attributes:
        states: Number of states.
        nbytes: Their bytes on disk.
    """

    states: int
    nbytes: int


class StateFiles:
    """States in a folder, the ones used least recently removed where they exceed a bound.

    Thread-safe. Other processes may read, write and clear the folder at any time.

    Args:
        folder: The folder; made if it isn't there, for this user alone, since states tell of the
            texts they were made from.
        max_bytes: Most bytes of all files, noted in the folder for whoever opens it without a
            bound. None for what is noted there, else `DEFAULT_MAX_BYTES`. Processes that write at
            the same time may exceed it by a sixteenth each before they notice.
        precision: How states are kept there, noted likewise. None for what is noted, else "model".
            States that are kept in another way count for the bound and are otherwise not seen.

    Attributes:
        max_bytes: The bound.
        precision: How states are kept.
        damaged: Files so far that were found damaged, and dropped, or couldn't be read.
        unwritten: States so far that couldn't be written, for want of room on the disk, say.
        too_large: States so far that were not written because they exceed the bound by themselves.
        evicted: Files that were removed so far to keep the bound.

    Raises:
        InputError: If the bound isn't positive, or the precision unknown.
        StorageError: If the folder isn't there and can't be made.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise InputError(f"max_bytes is {max_bytes}; pass a positive number of bytes")
        check_precision(precision)
        self.folder = Path(folder)
        self.damaged = self.unwritten = self.too_large = self.evicted = 0
        self._lock = threading.Lock()
        self._allowance = 0  # bytes that may be written before the folder is looked at again
        try:
            self._make_folder()
        except OSError as error:
            raise StorageError(
                f"{self.folder} can't be made ({error.strerror or error}); choose another folder"
            ) from error
        remove_leftovers(self.folder)
        asked = {"max_bytes": max_bytes, "precision": precision}
        named = {name: value for name, value in asked.items() if value is not None}
        self._notes = _noted(self.folder) | named
        self.max_bytes: int = self._notes.get("max_bytes", DEFAULT_MAX_BYTES)
        self.precision: Precision = self._notes.get("precision", "model")
        if named:
            with suppress(OSError):  # where nothing can be written they still hold for this
                _note(self.folder, named)
                self._make_room(0)

    def get(self, key: str) -> ChunkState | Int8State | None:
        """Return the state kept under a key; None if there is none, or none that is whole."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note_damage("%s can't be read: %s", path, error.strerror or error)
            return None
        state = _decoded(key, data)
        if isinstance(state, Int8State) is not (self.precision == "int8"):
            state = None  # the name says one thing and the content another
        if state is None:
            self._note_damage("%s is damaged and was dropped", path)
            with suppress(OSError):
                path.unlink()
            return None
        self.touch(key)
        return state

    def touch(self, key: str) -> None:
        """Note that a state was used now."""
        with suppress(OSError):
            os.utime(self._path(key))

    def put(self, key: str, state: ChunkState | Int8State) -> None:
        """Keep a state, unless it can't be written or is larger than the bound."""
        path, data = self._path(key), _encoded(key, state)
        if len(data) > self.max_bytes:
            with self._lock:
                self.too_large += 1
            return
        try:
            self._make_room(len(data))
            self._make_folder()  # it may have been removed meanwhile, with what was noted in it
            if self._notes and not os.path.exists(self.folder / _NOTES_FILE):
                _note(self.folder, self._notes)
            write_whole(path, data, private=True)
        except OSError as error:
            if not self.has(key):  # else another process was quicker, and holds it open
                self._note_unwritten(error.strerror or str(error))

    def size(self) -> FolderSize:
        """Return what the folder holds."""
        files = self._files()
        return FolderSize(len(files), sum(size for _, size, _ in files))

    def keys(self) -> list[str]:
        """Return the keys of all states that are kept in the precision of this, in no order."""
        ending = _ENDINGS[self.precision]
        return [path.stem for _, _, path in self._files() if path.suffix == ending]

    def has(self, key: str) -> bool:
        """Tell whether a state is there, whole or not."""
        return os.path.isfile(self._path(key))

    def remove(self, key: str) -> bool:
        """Remove a state; return whether it was there.

        Raises:
            StorageError: If it is there and can't be removed.
        """
        return _removed(self._path(key))

    def clear(self) -> int:
        """Remove all states, however they are kept, and the folder if nothing else is in it.

        Returns:
            How many there were.

        Raises:
            StorageError: If one can't be removed.
        """
        removed = sum(_removed(path) for _, _, path in self._files())
        with suppress(OSError):
            (self.folder / _NOTES_FILE).unlink()
        with suppress(OSError):
            self.folder.rmdir()
        return removed

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InputError(f"{key!r} is no key of a chunk state; keys are SHA-256 in hex")
        return self.folder / f"{key}{_ENDINGS[self.precision]}"

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return time of last use in ns, size and path of each file."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder) as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name):
                    with suppress(OSError):  # gone meanwhile
                        status = entry.stat()
                        found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        return found

    def _make_room(self, needed: int) -> None:
        """Remove the files used least recently, where one of so many bytes wouldn't fit."""
        with self._lock:
            if 0 < needed <= self._allowance:
                self._allowance -= needed
                return
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            slack = self.max_bytes // _SLACK
            if total + needed > self.max_bytes:
                # More than is needed goes, so that not every state has to look at all files.
                most = self.max_bytes - needed - slack
                for _, size, path in files:
                    if total <= most:
                        break
                    try:
                        path.unlink()
                    except FileNotFoundError:
                        pass
                    except OSError:  # another's, or in use
                        continue
                    total -= size
                    self.evicted += 1
                if total + needed > self.max_bytes:
                    raise OSError("max_bytes is reached, and files can't be removed")
            self._allowance = max(0, min(slack, self.max_bytes - total - needed))

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _note_damage(self, message: str, *values: object) -> None:
        with self._lock:
            self.damaged += 1
        logger.warning(message, *values)

    def _note_unwritten(self, reason: str) -> None:
        with self._lock:
            self.unwritten += 1
            first = self.unwritten == 1
        if first:
            logger.warning("a chunk state can't be kept in %s: %s", self.folder, reason)


def check_precision(precision: str | None) -> None:
    """Check a precision that a caller named; None is none.

    Raises:
        InputError: If there is no such one.
    """
    known = get_args(Precision)
    if precision is not None and precision not in known:
        raise InputError(f"precision is {precision!r}; pass {' or '.join(map(repr, known))}")


def _removed(path: Path) -> bool:
    """Remove a file; return whether it was there.

    Raises:
        StorageError: If it is there and can't be removed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(
            f"{path} can't be removed ({error.strerror or error}); close what uses it, or check "
            "who owns it"
        ) from error
    return True


def _note(folder: Path, notes: Mapping[str, Any]) -> None:
    """Note values in a folder; others that are noted there stay."""
    text = json.dumps(_noted(folder) | dict(notes))
    write_whole(folder / _NOTES_FILE, text.encode(), private=True)


def _noted(folder: Path) -> dict[str, Any]:
    """Return `max_bytes` and `precision` as far as they are noted, and fit to be taken."""
    try:
        notes = json.loads((folder / _NOTES_FILE).read_bytes())
        limit, precision = notes.get("max_bytes"), notes.get("precision")
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    found: dict[str, Any] = {}
    if type(limit) is int and limit > 0:
        found["max_bytes"] = limit
    if precision in get_args(Precision):
        found["precision"] = precision
    return found


def _encoded(key: str, state: ChunkState | Int8State) -> bytes:
    tensors = {own.name: getattr(state, own.name) for own in fields(state)}
    body = save({name: own.detach().cpu().contiguous() for name, own in tensors.items()})
    return _MAGIC + _digest(key, memoryview(body)) + body


def _decoded(key: str, data: bytes) -> ChunkState | Int8State | None:
    """Return the state that a file of this key holds; None if the file isn't as it was written."""
    start = len(_MAGIC) + _DIGEST_BYTES
    body = memoryview(data)[start:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : start] != _digest(key, body):
        return None
    try:
        tensors = load(bytes(body))
        return Int8State(**tensors) if "like" in tensors else ChunkState(**tensors)
    except (SafetensorError, TypeError, ValueError, RuntimeError):
        return None  # whoever wrote it knew how to make a checksum


def _digest(key: str, body: memoryview) -> bytes:
    found = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES)
    found.update(body)
    return found.digest()
