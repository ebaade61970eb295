"""The cosines of an embedding model, kept with what else a calibration reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from at2_rag.data.examples import Example
from at2_rag.training.collection.collection import Collection, Row
from at2_rag.training.collection.samples import content_hash
from at2_rag.training.labelling.embedding import EmbeddingTeacher

_MODEL_SUFFIXES = (".json", ".txt", ".model", ".safetensors")


class CosineCollection(Collection):
    """Rows with the cosines [S] of examples' chunks to their questions, float32.

    Args:
        examples: One or more.
        folder: Where they are kept, in a folder for each model.
        model: Folder of the embedding model.
        progress: Called with the number of texts embedded and in all.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        folder: Path,
        *,
        model: Path,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._examples, self._model, self._progress = examples, model, progress
        files = _files_hash(model)
        settings = {"kind": "cosines", "model": files, "examples": content_hash(examples)}
        super().__init__(folder / f"cosines-{files[:8]}", settings, [range(len(examples))])

    def read_shard(self, items: Sequence[int], executor: Executor) -> Iterable[Row | str]:
        """Embed all texts, each different one once."""
        examples = [self._examples[item] for item in items]
        scores = EmbeddingTeacher(self._model).scores(examples, progress=self._progress)
        return [{"cosines": np.array(of_example, dtype=np.float32)} for of_example in scores]


def _files_hash(folder: Path) -> str:
    """Return a SHA-256 over all files that decide what a model computes."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _MODEL_SUFFIXES:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()
