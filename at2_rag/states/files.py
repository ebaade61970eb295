"""Chunk states on disk: one file each, bounded in bytes, shared by any number of processes.

The folder is its own index: a file's name is the state's key, the file system knows its size and
last use. A file begins with a checksum over key and content, which shows when it is damaged; no
checksum makes up for numbers that no model keeps. FIFOs, devices and symlinks are no states. None
of this is an error: a state that can't be read is computed again, one that can't be written isn't
kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from at2_rag.errors import InputError, StorageError, brief
from at2_rag.files import read_regular, remove_leftovers, write_whole
from at2_rag.model.forks import ForkLock

if TYPE_CHECKING:  # so that `at2-rag cache` doesn't load torch
    from at2_rag.reading.kept_heads import KeptHeads

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 20 * 2**30
MOST_BYTES = 2**63

_MAGIC = b"at2rag02"
_DIGEST_BYTES = 16
_FORM = struct.Struct("<4I")  # dtype, heads, tokens, numbers of a vector
_DTYPES = ("int8", "bfloat16", "float16", "float32")
_FILE = re.compile(r"[0-9a-f]{64}\.state")
_NOTES_FILE = "folder.json"
_MOST_STATE_BYTES = 2**32  # a window of 1,024 tokens of the largest models has a tenth
_MOST_NOTES_BYTES = 2**16
_SLACK = 16  # the folder is scanned again once a sixteenth of the bound has been written


@dataclass(frozen=True, slots=True)
class FolderSize:
    """Number of states in a folder, and their bytes on disk."""

    states: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class StateCounts:
    """What happened in a cache so far."""

    memory_hits: int  # states read from memory
    disk_hits: int  # states read from disk
    misses: int  # missing or damaged, so that the model had to read the chunk
    damaged: int  # files that were damaged, and dropped, or couldn't be read
    unwritten: int  # states that couldn't be written to disk
    too_large: int  # states larger than the folder's bound by themselves
    evicted: int  # files removed to keep the folder's bound
    memory_bytes: int  # bytes of the states in memory


class StateFiles:
    """States in a folder; the least recently used are removed when they exceed a bound.

    Thread-safe. Other processes may read, write and clear the folder at any time; those that write
    at once may each exceed the bound by a sixteenth before they notice. `max_bytes` is noted in
    the folder; None for what is noted there, else the default.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.damaged = self.unwritten = self.too_large = self.evicted = 0  # see `StateCounts`
        self._lock = ForkLock()
        self._allowance = 0  # bytes that may be written before the folder is scanned again
        try:
            self._make_folder()
        except OSError as error:
            raise StorageError(
                f"{self.folder} can't be made ({error.strerror or error}); choose another folder"
            ) from error
        remove_leftovers(self.folder)
        self._noted = max_bytes or _noted_bound(self.folder)
        self.max_bytes = self._noted or DEFAULT_MAX_BYTES
        if max_bytes is not None:
            with suppress(OSError):  # in a folder that can't be written it holds for this object
                self._write_notes()
                self._make_room(0)

    def get(self, key: str) -> KeptHeads | None:
        """Return the state of a key; None if there is none, or it is damaged."""
        path = self._path(key)
        try:
            data = read_regular(path, most=min(self.max_bytes, _MOST_STATE_BYTES), follow=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note_damage("%s can't be read: %s", path, error.strerror or error)
            return None
        state = _decoded(key, data)
        if state is None:
            self._note_damage("%s is damaged and was dropped", path)
            with suppress(OSError):
                path.unlink()
        else:
            self.touch(key)
        return state

    def touch(self, key: str) -> None:
        """Record that a state was used now."""
        with suppress(OSError):
            os.utime(self._path(key))

    def put(self, key: str, state: KeptHeads) -> None:
        """Keep a state, unless it can't be written or exceeds the bound by itself."""
        path, data = self._path(key), _encoded(key, state)
        if len(data) > self.max_bytes:
            with self._lock:
                self.too_large += 1
            return
        try:
            self._make_room(len(data))
            self._make_folder()  # it may have been removed meanwhile, notes included
            if self._noted and not os.path.exists(self.folder / _NOTES_FILE):
                self._write_notes()
            write_whole(path, data, private=True)
        except OSError as error:
            if self.has(key):  # another process was faster, and has it open
                return
            with self._lock:
                self.unwritten += 1
                first = self.unwritten == 1
            if first:
                reason = error.strerror or error
                logger.warning("a chunk state can't be kept in %s: %s", self.folder, reason)

    def size(self) -> FolderSize:
        """Return the number and the bytes of all states."""
        files = self._files()
        return FolderSize(len(files), sum(size for _, size, _ in files))

    def keys(self) -> list[str]:
        """Return the keys of all states, in any order."""
        return [path.stem for _, _, path in self._files()]

    def has(self, key: str) -> bool:
        """Return whether a state exists, damaged or not."""
        path = self._path(key)
        return os.path.isfile(path) and not os.path.islink(path)

    def remove(self, key: str) -> bool:
        """Remove a state; return whether it existed."""
        return _removed(self._path(key))

    def clear(self) -> int:
        """Remove all states, and the folder if nothing else is in it; return their number."""
        removed = sum(_removed(path) for _, _, path in self._files())
        with suppress(OSError):
            (self.folder / _NOTES_FILE).unlink()
        with suppress(OSError):
            self.folder.rmdir()
        return removed

    def _path(self, key: str) -> Path:
        name = f"{key}.state"
        if not _FILE.fullmatch(name):
            raise InputError(f"{brief(key)} is not a key of a chunk state; keys are SHA-256 in hex")
        return self.folder / name

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return time of last use in ns, size and path of each file."""
        files = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder) as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(OSError):  # removed meanwhile
                        status = entry.stat(follow_symlinks=False)
                        files.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        return files

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used files if one of `needed` bytes wouldn't fit."""
        with self._lock:
            if 0 < needed <= self._allowance:
                self._allowance -= needed
                return
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            slack = self.max_bytes // _SLACK
            if total + needed > self.max_bytes:
                # Remove more than needed, so that not every state has to scan the folder.
                most = self.max_bytes - needed - slack
                for _, size, path in files:
                    if total <= most:
                        break
                    try:
                        path.unlink(missing_ok=True)
                    except OSError:  # of another user, or in use
                        continue
                    total -= size
                    self.evicted += 1
                if total + needed > self.max_bytes:
                    raise OSError("max_bytes is reached, and files can't be removed")
            self._allowance = max(0, min(slack, self.max_bytes - total - needed))

    def _make_folder(self) -> None:
        # For this user alone, since states give away the texts they were made from.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _write_notes(self) -> None:
        notes = json.dumps({"max_bytes": self._noted})
        write_whole(self.folder / _NOTES_FILE, notes.encode(), private=True)

    def _note_damage(self, message: str, *values: object) -> None:
        with self._lock:
            self.damaged += 1
        logger.warning(message, *values)


def _removed(path: Path) -> bool:
    """Remove a file; return whether it existed."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(
            f"{path} can't be removed ({error.strerror or error}); close the programs that use "
            "it, or check its owner"
        ) from error
    return True


def _noted_bound(folder: Path) -> int | None:
    """Return `max_bytes` if a valid one is noted in a folder."""
    try:
        notes = json.loads(read_regular(folder / _NOTES_FILE, most=_MOST_NOTES_BYTES, follow=False))
        limit = notes.get("max_bytes")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return limit if type(limit) is int and 0 < limit < MOST_BYTES else None


def _encoded(key: str, state: KeptHeads) -> bytes:
    import torch

    dtype = str(state.levels.dtype).removeprefix("torch.")
    parts = [state.levels] if state.scales is None else [state.levels, state.scales]
    numbers = [one.cpu().contiguous().view(torch.uint8).numpy().tobytes() for one in parts]
    body = b"".join([_FORM.pack(_DTYPES.index(dtype), *state.levels.shape), *numbers])
    return _MAGIC + _digest(key, memoryview(body)) + body


def _decoded(key: str, data: bytes) -> KeptHeads | None:
    """Return the state in the file of a key, over its bytes; None if the file is damaged."""
    import torch

    from at2_rag.reading.kept_heads import KeptHeads

    start = len(_MAGIC) + _DIGEST_BYTES
    body = memoryview(data)[start:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : start] != _digest(key, body):
        return None
    if len(body) < _FORM.size:
        return None
    kind, *shape = _FORM.unpack_from(body)
    count, vectors = math.prod(shape), math.prod(shape[:2])
    if not count or kind >= len(_DTYPES):
        return None
    dtype: torch.dtype = getattr(torch, _DTYPES[kind])
    scaled = dtype == torch.int8
    if len(body) != _FORM.size + count * dtype.itemsize + 2 * vectors * scaled:
        return None
    numbers = bytearray(body[_FORM.size :])  # torch wants memory that may be written
    levels = torch.frombuffer(numbers, dtype=dtype, count=count).view(shape)
    scales = None
    if scaled:
        scales = torch.frombuffer(numbers, dtype=torch.float16, offset=count).view(shape[:2])
    state = KeptHeads(levels, scales)
    return state if state.is_plausible else None


def _digest(key: str, body: memoryview) -> bytes:
    digest = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES)
    digest.update(body)
    return digest.digest()
