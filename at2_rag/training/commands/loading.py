"""The model as the commands that train load it."""

from __future__ import annotations

import torch
from transformers.utils.logging import disable_progress_bar

from at2_rag.model.loading import LoadedModel


def load_for_workers(name: str, *, revision: str | None, dtype: str | None) -> LoadedModel:
    """Load a model for many threads that each read examples.

    Sets torch's threads to one for the whole process: many workers of one thread read faster than
    one worker of many, see `Collection.collect`.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar for reading local files
    torch.set_num_threads(1)
    return LoadedModel.from_pretrained(name, revision=revision, dtype=dtype)
