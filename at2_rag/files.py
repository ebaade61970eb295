"""Files that are whole or absent, whatever else writes to their folder."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from at2_rag.errors import StorageError

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
