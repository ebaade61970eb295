"""The model whose answers are judged, as a file on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

import at2_rag
from at2_rag.model_hub import DEFAULT_MODEL, resolve_model
from at2_rag.model_loading import load_model, preferred_dtype
from at2_rag.training.answer_model import AnswerModel
from at2_rag_evals.provenance import files_sha256, without_folder
from at2_rag_evals.rankers.at2 import MODEL_FILES

_MODULES = (
    "attention",
    "chunk_states",
    "chunks",
    "prompt",
    "scoring_model",
    "training/ablation",
    "training/answer_model",
    "training/shared_reading",
)


def answering_settings(model: str | None) -> Mapping[str, object]:
    """Return all of a model that decides what it answers and reads, as JSON-ready values.

    Args:
        model: A known name, a folder or a hub id; None for the default model.

    Raises:
        ModelNotFoundError: If the model can't be found or fetched.
    """
    name = model or DEFAULT_MODEL
    device = _device()
    package = Path(at2_rag.__file__).parent
    return {
        "model": without_folder(name),
        "model_files_sha256": files_sha256(resolve_model(name), MODEL_FILES),
        "device": device.type,
        "dtype": str(preferred_dtype(device)).removeprefix("torch."),
        "code_sha256": files_sha256(package, [f"{module}.py" for module in _MODULES]),
    }


def answering_model(model: str | None) -> Callable[[], AnswerModel]:
    """Return a function that loads the model.

    Args:
        model: As in `answering_settings`.
    """

    def load() -> AnswerModel:
        torch.set_num_threads(1)  # many readings at a time are faster than many threads a reading
        device = _device()
        loaded, tokenizer = load_model(
            resolve_model(model or DEFAULT_MODEL), device=device, dtype=preferred_dtype(device)
        )
        return AnswerModel(loaded, tokenizer)

    return load


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
