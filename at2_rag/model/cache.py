"""The folder of prepared models: each is whole or absent, and prepared by one process.

A model is made in a workspace beside its final folder and renamed into place as the last step,
under a file lock. So a killed process leaves at most a workspace, which the next run removes. A
manifest lists sizes, SHA-256 and quick checksums of the files; a folder with other files is made
again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from at2_rag.errors import ModelNotFoundError, StorageError
from at2_rag.progress import StepProgress

CACHE_VARIABLE = "AT2_RAG_CACHE"
MANIFEST = "at2_rag_manifest.json"
FORMAT = 1
"""Goes up when the same source would be converted into other bytes."""

BLOCK = 1 << 20  # bytes read at once


def cache_dir() -> Path:
    """Return the folder of all that at2_rag keeps, which may not exist yet.

    Raises:
        StorageError: If it would be in a home folder, and this user has none.
    """
    try:
        if folder := os.environ.get(CACHE_VARIABLE):
            return Path(folder).expanduser().absolute()
        return Path(platformdirs.user_cache_dir("at2_rag", appauthor=False))
    except RuntimeError as error:
        raise StorageError(
            f"this user has no home folder to keep files in ({error}); set {CACHE_VARIABLE} to a "
            "folder"
        ) from error


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A prepared model, ready or not."""

    root: Path  # folder of all prepared models
    name: str
    source_sha256: str  # of the file it is converted from

    @property
    def folder(self) -> Path:
        """Folder of the ready model; another source or format has another folder."""
        return self.root / f"{self.name}-{self.source_sha256[:8]}-v{FORMAT}"

    def is_whole(self) -> bool:
        """Return whether every file of the model is as it was written, by size and checksum."""
        return self.damage() is None

    def damage(self) -> str | None:
        """Return what is wrong with the model; None if it is whole.

        Reads all of it, the default model in about 0.04 s.
        """
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if (manifest["format"], manifest["source_sha256"]) != (FORMAT, self.source_sha256):
                return f"{MANIFEST} is of another format or source"
            for name, file in manifest["files"].items():
                path = self.folder / name
                if path.stat().st_size != file["size"]:
                    return f"{name} has {path.stat().st_size} bytes instead of {file['size']}"
                is_old = "quick_sum" not in file  # of a manifest before there were any
                if (
                    sha256_of(path) != file["sha256"]
                    if is_old
                    else quick_sum(path) != file["quick_sum"]
                ):
                    return f"{name} has another checksum than when it was written"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    @contextmanager
    def workspace(self, progress: StepProgress) -> Iterator[Path]:
        """Lock the model for this process and yield a fresh folder, removed at the end.

        Workspaces of killed processes are removed, too: none is in use while the lock is held.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        prefix = f".{self.folder.name}.tmp-"
        lock = FileLock(self.root / f"{self.folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with progress.stage(f"Waiting for another process to prepare {self.name}"):
                lock.acquire()
        try:
            for leftover in self.root.glob(f"{prefix}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with TemporaryDirectory(
                prefix=prefix, dir=self.root, ignore_cleanup_errors=True
            ) as workspace:
                yield Path(workspace)
        finally:
            lock.release()

    def publish(self, made: Path, workspace: Path) -> None:
        """Move a finished model from the workspace to its folder in one step."""
        files = {
            path.name: {
                "size": path.stat().st_size,
                "sha256": sha256_of(path),
                "quick_sum": quick_sum(path),
            }
            for path in sorted(made.iterdir())
        }
        manifest = {"format": FORMAT, "source_sha256": self.source_sha256, "files": files}
        (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in (*made.iterdir(), made):
            _sync(path)
        if self.folder.exists():
            self.folder.rename(workspace / "damaged")
        made.rename(self.folder)
        _sync(self.root)

    def require_space(self, need: int) -> None:
        """Raise `ModelNotFoundError` unless the disk has `need` bytes free."""
        free = shutil.disk_usage(self.root).free
        if free < need:
            raise ModelNotFoundError(
                f"preparing {self.name} needs about {gigabytes(need)} in {self.root}, "
                f"{gigabytes(free)} are free; free some space, or set {CACHE_VARIABLE} to a "
                "folder on another disk"
            )


def sha256_of(path: Path, report: Callable[[float], None] = lambda share: None) -> str:
    """Return a file's SHA-256 in hexadecimal; `report` takes the share read so far."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            report(file.tell() / size)
    return digest.hexdigest()


def quick_sum(path: Path) -> str:
    """Return a checksum of a file that costs hardly more than reading it, in hexadecimal.

    It is made of a 64-bit sum of each block: it shows lost or changed pages, but unlike SHA-256 it
    is no guard against intent.
    """
    sums = []
    block = bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            block[size:] = bytes(BLOCK - size)
            sums.append(int(np.frombuffer(block, dtype=np.uint64).sum()))
    return hashlib.sha256(repr(sums).encode()).hexdigest()


def gigabytes(size: int) -> str:
    """Return a size for people, like "0.70 GB"."""
    return f"{size / 1e9:.2f} GB"


def _sync(path: Path) -> None:
    """Flush a file or, where the system can, a folder's entries to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
