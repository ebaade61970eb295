"""The model whose answers are judged, as a file on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel, preferred_dtype
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag_evals.model_record import eval_device, model_record


def answering_settings(model: str | None) -> Mapping[str, object]:
    """Return all of a model that decides what it answers and reads, as JSON-ready values.

    Args:
        model: A known name, a folder or a hub id; None for the default model.

    Raises:
        ModelNotFoundError: If the model can't be found or fetched.
    """
    return model_record(model or DEFAULT_MODEL)


def answering_model(model: str | None) -> Callable[[], AnswerModel]:
    """Return a function that loads the model.

    Args:
        model: As in `answering_settings`.
    """

    def load() -> AnswerModel:
        torch.set_num_threads(1)  # many readings at a time are faster than many threads a reading
        device = eval_device()
        loaded = LoadedModel.from_pretrained(
            model or DEFAULT_MODEL, device=device, dtype=preferred_dtype(device)
        )
        return AnswerModel(loaded.model, loaded.tokenizer)

    return load
