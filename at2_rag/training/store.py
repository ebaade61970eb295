"""Features on disk, a file a shard, so that a killed collection goes on where it stopped.

A folder holds `collection.json` (the settings that decide the features; another setting is
another folder's business) and `shard-00000.safetensors` and so on. A shard is written under a
temporary name and renamed when whole, so that what is there is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from at2_rag.errors import DataError

SETTINGS_FILE = "collection.json"


@dataclass(frozen=True, slots=True, eq=False)
class ShardFeatures:
    """Features of the samples of one shard, or of several joined.

    Attributes:
        examples: [I] int64, index of each sample's example.
        counts: [I] int64, sources of each sample; they follow one another below.
        labels: [sum of counts] bool, gold or not.
        log_mass: [sum of counts, P, L, H] float16, per pass; see `FeatureSpec`.
        log_ratio: The same shape.
    """

    examples: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.bool_]
    log_mass: npt.NDArray[np.float16]
    log_ratio: npt.NDArray[np.float16]

    @staticmethod
    def join(shards: Sequence[ShardFeatures]) -> ShardFeatures:
        """Return the samples of all shards, in order."""
        return ShardFeatures(
            *(
                np.concatenate([getattr(shard, name) for shard in shards])
                for name in ("examples", "counts", "labels", "log_mass", "log_ratio")
            )
        )


class FeatureStore:
    """The folder of one collection.

    Args:
        folder: Created if missing.
        settings: JSON-ready values that decide the features.

    Raises:
        DataError: If the folder holds a collection with other settings.
    """

    def __init__(self, folder: str | Path, *, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS_FILE
        wanted = json.loads(json.dumps(settings))
        if not path.exists():
            _write_whole(path, json.dumps(wanted, indent=2, sort_keys=True).encode())
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        if differing:
            changes = ", ".join(
                f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} now" for k in differing
            )
            raise DataError(
                f"{self.folder} holds features collected with other settings ({changes}); "
                "use another folder, or remove this one"
            )

    def read(self, index: int) -> ShardFeatures | None:
        """Return a shard, or None if it is missing or damaged (and so has to be made again)."""
        path = self._path(index)
        if not path.exists():
            return None
        try:
            return ShardFeatures(**load_file(path))
        except (SafetensorError, TypeError):
            path.unlink()
            return None

    def write(self, index: int, shard: ShardFeatures) -> None:
        """Write a shard; it is there whole or not at all."""
        path = self._path(index)
        temporary = path.with_suffix(".part")
        save_file({name: getattr(shard, name) for name in shard.__slots__}, temporary)
        os.replace(temporary, path)

    def _path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)
