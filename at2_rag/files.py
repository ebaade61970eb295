"""Files that are whole or absent, whatever else writes to their folder."""

from __future__ import annotations

import errno
import gzip
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from at2_rag.errors import StorageError

MOST_DATA_BYTES = 2**30
"""What is read of a file of questions, unpacked."""

_GZIP = b"\x1f\x8b"
_PART = ".at2-part"
_LEFTOVER_SECONDS = 3600.0  # writing a file takes seconds


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file under a temporary name beside it, then rename it into place.

    If that fails, nothing is left. A `private` file can be read by this user alone.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_PART}")
    mode = 0o600 if private else 0o666
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def read_regular(path: Path, *, most: int, follow: bool = True) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Never waits for a FIFO and never reads a device; `follow` says whether a symlink will do.

    Raises:
        OSError: If it isn't such a file, or can't be read.
    """
    extra = getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | extra)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most:
            reason = f"{status.st_size:,} bytes, of which at most {most:,} are read"
            raise OSError(errno.EFBIG, reason, str(path))
        return file.read()


def data_lines(
    path: Path, *, packed: bool | None = None, most_line: int = MOST_DATA_BYTES
) -> Iterator[bytes]:
    """Yield the lines of a file, with their ends; `MOST_DATA_BYTES` in all, unpacked.

    Args:
        path: The file.
        packed: Whether it is gzipped; None to tell by its first bytes.
        most_line: Most bytes of a line.

    Raises:
        OSError: If it can't be read, or file or line are longer.
        EOFError: If a gzipped file is cut short.
        zlib.error: If a gzipped file is damaged.
    """
    with path.open("rb") as file:
        if packed is None:
            packed = file.peek(len(_GZIP)).startswith(_GZIP)
        lines = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
        left = MOST_DATA_BYTES
        while line := lines.readline(min(most_line, left) + 1):
            left -= len(line)
            if len(line) > most_line:
                raise OSError(f"the next line has more than {most_line:,} bytes")
            if left < 0:
                raise OSError(
                    f"it has more than {MOST_DATA_BYTES:,} bytes, unpacked, the most that is read; "
                    "split it"
                )
            yield line


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `write_whole` that are older than an hour."""
    for part in folder.glob(f"*{_PART}"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _LEFTOVER_SECONDS:
                part.unlink()


def check_writable(folder: Path) -> None:
    """Raise `StorageError` unless a folder can be made and written to; leaves nothing behind."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "probe", b"")
        (folder / "probe").unlink()
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written ({error.strerror or error}); choose another folder"
        ) from error
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def without_folder(value: str) -> str:
    """Return the name of an existing file or folder; any other value as it is."""
    try:
        return last_part(value) if Path(value).expanduser().exists() else value
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a null character
        return value


def last_part(path: str) -> str:
    """Return the name of a file or folder, which need not exist."""
    try:
        return Path(path).expanduser().resolve().name
    except (OSError, RuntimeError, ValueError):
        return path
