"""Files that are there whole or not at all, whatever else writes to their folder."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from itertools import count
from pathlib import Path

from at2_rag.errors import StorageError

_HOST = re.sub(r"[^\w-]", "_", platform.node())
_PART = re.compile(rf"\.{re.escape(_HOST)}-(\d+)-\d+\.part$")
_numbers = count()


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file under a name of this process's own, then give it its name.

    Args:
        path: The file.
        data: What it is to hold.
        private: Whether only this user may read it.

    Raises:
        OSError: If it can't be written; nothing of it is left then.
    """
    part = path.with_name(f"{path.name}.{_HOST}-{os.getpid()}-{next(_numbers)}.part")
    try:
        with open(part, "xb", opener=_private_opener if private else None) as file:
            file.write(data)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine left in a folder when they were killed in writing."""
    for part in folder.glob("*.part"):
        found = _PART.search(part.name)
        if found is not None and not _runs(int(found[1])):
            with suppress(OSError):
                part.unlink()


def check_writable(folder: Path) -> None:
    """Check that a folder can be made and written to; leaves nothing behind.

    Raises:
        StorageError: If it can't.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "probe", b"")
        (folder / "probe").unlink()
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written ({error.strerror or error}); choose another folder"
        ) from error
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


def _runs(process: int) -> bool:
    """Tell whether a process may be running."""
    if os.name != "posix":
        return True  # asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
