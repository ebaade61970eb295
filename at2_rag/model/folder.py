"""Checks that a local folder holds a model that can be loaded."""

from __future__ import annotations

import json
from pathlib import Path

from at2_rag.errors import ModelNotFoundError

_WEIGHTS = "model.safetensors"
_WEIGHTS_INDEX = "model.safetensors.index.json"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_model_folder(folder: Path) -> None:
    """Check that a folder has a config, a tokenizer and safetensors weights.

    Only names and JSON files are read; loading shows whether the weights fit.

    Raises:
        ModelNotFoundError: If something is missing; the message says what.
    """
    missing = [*_config_problems(folder), *_tokenizer_problems(folder), *_weight_problems(folder)]
    if missing:
        raise ModelNotFoundError(
            f"the folder {folder} isn't a model that can be loaded: {'; '.join(missing)}; pass a "
            "folder written by save_pretrained of both model and tokenizer"
        )


def _config_problems(folder: Path) -> list[str]:
    path = folder / "config.json"
    if not path.is_file():
        return ["no config.json"]
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"config.json can't be read ({error})"]
    return [] if isinstance(config, dict) else ["config.json isn't a JSON object"]


def _tokenizer_problems(folder: Path) -> list[str]:
    if any((folder / name).is_file() for name in _TOKENIZERS):
        return []
    return [f"no tokenizer (none of {', '.join(_TOKENIZERS)})"]


def _weight_problems(folder: Path) -> list[str]:
    index = folder / _WEIGHTS_INDEX
    if (folder / _WEIGHTS).is_file():
        return []
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return [f"{_WEIGHTS_INDEX} can't be read ({type(error).__name__}: {error})"]
        lost = sorted(shard for shard in shards if not (folder / str(shard)).is_file())
        return [f"no {', '.join(lost)} although {_WEIGHTS_INDEX} lists it"] if lost else []
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return [
            f"its only weights are a pickle ({', '.join(pickles[:3])}), which is never loaded "
            "because it can run code: convert them to safetensors"
        ]
    return [f"no {_WEIGHTS}"]
