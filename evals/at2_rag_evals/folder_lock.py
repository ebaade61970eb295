"""One writer at a time for a folder of stored results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from at2_rag.errors import InputError


@contextmanager
def only_writer(folder: Path | None) -> Iterator[None]:
    """Make the folder and hold it for this run; None for no folder and nothing to hold.

    Raises:
        InputError: If another run holds it.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"another run is writing to {folder}; wait for it or choose another --output"
        ) from error
    try:
        yield
    finally:
        lock.release()
