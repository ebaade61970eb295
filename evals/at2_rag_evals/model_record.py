"""What decides how a model reads: its files, number type and device, at2_rag and its libraries."""

from __future__ import annotations

from importlib.metadata import version

import torch

from at2_rag.files import without_folder
from at2_rag.model.hub import DEFAULT_MODEL, resolve_model
from at2_rag.model.loading import preferred_dtype
from at2_rag_evals.provenance import code_version, files_sha256

_LIBRARIES = ("tokenizers", "torch", "transformers")
_MODEL_FILES = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")


def model_record(model: str | None) -> dict[str, object]:
    """Return what decides a model's readings on this machine, as JSON-ready values.

    `model` is a known name, a folder or a hub id; None for the default model.
    """
    device = eval_device()
    return {
        **model_files_record(model),
        "device": device.type,
        "dtype": str(preferred_dtype(device)).removeprefix("torch."),
        **{name: version(name) for name in _LIBRARIES},
        "at2-rag": code_version(),
    }


def model_files_record(model: str | None) -> dict[str, object]:
    """Return a model's name and the hash of its files; arguments as in `model_record`."""
    model = model or DEFAULT_MODEL
    return {
        "model": without_folder(model),
        "model_files_sha256": files_sha256(resolve_model(model), _MODEL_FILES),
    }


def eval_device() -> torch.device:
    """Return where models run by default: CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
