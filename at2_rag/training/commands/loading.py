"""What both commands do around the work: load the model, write what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from at2_rag.errors import StorageError
from at2_rag.model.loading import LoadedModel


def load_for_workers(name: str, *, revision: str | None, dtype: str | None) -> LoadedModel:
    """Load a model for many threads that each read examples.

    Sets torch's threads to one for the whole process: many workers of one thread read faster than
    one worker of many, see `Collection.collect`.
    """
    torch.set_num_threads(1)
    return LoadedModel.from_pretrained(name, revision=revision, dtype=dtype)


@contextmanager
def writing_to(folder: Path, *, collected: Path) -> Iterator[None]:
    """Turn errors of the disk into one that says that what was read isn't lost."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written ({error}); make room or choose another folder: what was "
            f"read is kept in {collected}, and a rerun with --collected goes on from there"
        ) from error
