"""The two files of head weights: numbers as safetensors, and a description as JSON.

`head_weights.json` carries the SHA-256 of `head_weights.safetensors`. Nothing in them is code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from at2_rag.errors import HeadWeightsError, HeadWeightsNotFoundError, brief
from at2_rag.files import read_regular, write_whole

FORMAT_VERSION = 1
WEIGHTS_FILE = "head_weights.safetensors"
DESCRIPTION_FILE = "head_weights.json"
_MOST_BYTES = 2**30  # of one file; those of large models have some megabytes

Tensors = Mapping[str, npt.NDArray[Any]]


def write_folder(folder: Path, tensors: Tensors, description: Mapping[str, Any]) -> None:
    """Write the two files, adding `format_version` and `sha256` to the description."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = save(dict(tensors))
    described = {"format_version": FORMAT_VERSION, "sha256": hashlib.sha256(raw).hexdigest()}
    text = json.dumps({**described, **description}, indent=2) + "\n"
    write_whole(folder / WEIGHTS_FILE, raw)
    write_whole(folder / DESCRIPTION_FILE, text.encode())


def read_folder(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors and the description that `write_folder` wrote.

    Raises:
        HeadWeightsNotFoundError: If the folder lacks one of the files.
        HeadWeightsError: If a file is damaged, or of another format version.
    """
    try:
        raw = read_regular(folder / WEIGHTS_FILE, most=_MOST_BYTES)
        description = json.loads(read_regular(folder / DESCRIPTION_FILE, most=_MOST_BYTES))
    except OSError as error:
        raise HeadWeightsNotFoundError(
            f"no head weights in {folder}: {error.strerror} ({error.filename}); pass a "
            f"folder with {WEIGHTS_FILE} and {DESCRIPTION_FILE}, as `at2-rag train` writes it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise HeadWeightsError(f"{folder / DESCRIPTION_FILE} is not JSON: {error}") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise HeadWeightsError(
            f"{folder / DESCRIPTION_FILE} has format version {brief(version)}, this version of "
            f"at2_rag reads {FORMAT_VERSION}; train the weights again"
        )
    digest = hashlib.sha256(raw).hexdigest()
    if digest != description.get("sha256"):
        raise HeadWeightsError(
            f"{folder / WEIGHTS_FILE} is damaged: expected SHA-256 "
            f"{brief(description.get('sha256'))}, got {digest!r}; restore the file"
        )
    try:
        return load(raw), description
    except SafetensorError as error:
        raise HeadWeightsError(
            f"{folder} holds unusable head weights ({error!r}); train them again"
        ) from error
