"""What decides how a model reads: its files, number type and device, at2_rag and its libraries."""

from __future__ import annotations

from importlib.metadata import version

import torch

from at2_rag.model.hub import resolve_model
from at2_rag.model.loading import preferred_dtype
from at2_rag_evals.provenance import code_version, files_sha256, without_folder

_LIBRARIES = ("tokenizers", "torch", "transformers")
_MODEL_FILES = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")


def model_record(model: str) -> dict[str, object]:
    """Return what decides a model's readings on `eval_device`, as JSON-ready values.

    Args:
        model: A known name, a folder or a hub id.

    Raises:
        ModelNotFoundError: If the model can't be found or fetched.
    """
    device = eval_device()
    return {
        **model_files_record(model),
        "device": device.type,
        "dtype": str(preferred_dtype(device)).removeprefix("torch."),
        **{name: version(name) for name in _LIBRARIES},
        "at2-rag": code_version(),
    }


def model_files_record(model: str) -> dict[str, object]:
    """Return which model is meant, by what it is called and by its files.

    Args:
        model: A known name, a folder or a hub id.

    Raises:
        ModelNotFoundError: If the model can't be found or fetched.
    """
    return {
        "model": without_folder(model),
        "model_files_sha256": files_sha256(resolve_model(model), _MODEL_FILES),
    }


def eval_device() -> torch.device:
    """Return where evals run models: CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
