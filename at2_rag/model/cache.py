"""The folder of prepared models: each is whole or absent, and prepared by one process.

A model is made in a workspace beside its final folder and renamed into place as the last step,
under a file lock. So a killed process leaves at most a workspace, which the next run removes. A
manifest lists the sizes and SHA-256 of the files; a folder with other sizes is made again.
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

import platformdirs
from filelock import FileLock, Timeout

from at2_rag.errors import ModelNotFoundError
from at2_rag.progress import StepProgress

CACHE_VARIABLE = "AT2_RAG_CACHE"
MANIFEST = "at2_rag_manifest.json"
FORMAT = 1
"""Goes up when the same source would be converted into other bytes."""

BLOCK = 1 << 20  # bytes read at once


def cache_dir() -> Path:
    """Return the folder of all that at2_rag keeps, which may not exist yet."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(os.path.expanduser(folder)).absolute()
    return Path(platformdirs.user_cache_dir("at2_rag", appauthor=False))


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
        """Return whether every file of the model has the size that the manifest says."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if (manifest["format"], manifest["source_sha256"]) != (FORMAT, self.source_sha256):
                return False
            return all(
                (self.folder / name).stat().st_size == file["size"]
                for name, file in manifest["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

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
            path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)}
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
