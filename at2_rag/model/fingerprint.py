"""The fingerprint of a scoring model, by which head weights recognise their model.

SHA-256 over the architecture, the tokenizer's behaviour and every parameter. Floating-point
parameters are hashed as bfloat16, so that the same weights have the same fingerprint in float32,
float16 or bfloat16, from a folder or from a model object, under any name.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from at2_rag.files import write_whole
from at2_rag.model.cache import quick_sum

FORMAT_VERSION = 1  # goes up when a change of this module changes fingerprints
STATES_VERSION = 1  # goes up when a change of this project changes the states of chunks

_ARCHITECTURE = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rope_parameters",
)
_NOT_NUMERIC = (  # configuration that changes no number, or is hashed separately
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
_LOADED = (".safetensors", ".json", ".jinja", ".txt", ".model")  # endings of files
_PROBE = "Who wrote 'Emma' (1815)?\n\n  Größe, 北京, 🙂 <tag> 3.14"


def model_fingerprint(base: Any, tokenizer: Any) -> str:
    """Return the fingerprint of a base model and its tokenizer, 64 hexadecimal digits."""
    config = {name: getattr(base.config, name, None) for name in _ARCHITECTURE}
    vocabulary = sorted(tokenizer.get_vocab().items())
    # A copy, since calling a tokenizer sets the truncation and padding of its backend.
    probe = copy.deepcopy(tokenizer)(_PROBE, add_special_tokens=False)["input_ids"]
    digest = hashlib.sha256(
        json.dumps([config, vocabulary, probe], sort_keys=True, default=str).encode()
    )
    # Sorted by content: module names change with transformers' versions, the numbers don't.
    for part in sorted(_tensor_digest(parameter) for parameter in base.parameters()):
        digest.update(part)
    return digest.hexdigest()


def cached_fingerprint(
    folder: Path, cache: Path, compute: Callable[[], str], *, dtype: torch.dtype
) -> str:
    """Return the fingerprint of the model in `folder`, computed once for these files.

    The key holds the files' names, sizes, modification times and, of those that are loaded,
    checksums; the dtype, since float16 can't hold every number that bfloat16 can; and the versions
    of what reads the files. A `cache` folder that can't be written is ignored.
    """
    files = sorted(
        (
            path.name,
            path.stat().st_size,
            path.stat().st_mtime_ns,
            quick_sum(path) if path.suffix in _LOADED else "",
        )
        for path in folder.iterdir()
        if path.is_file()
    )
    made_by = [FORMAT_VERSION, version("transformers"), version("tokenizers")]
    key = json.dumps([str(folder.resolve()), files, str(dtype), made_by])
    entry = cache / hashlib.sha256(key.encode()).hexdigest()
    try:
        known = entry.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    except (OSError, UnicodeDecodeError):
        pass
    fingerprint = compute()
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        write_whole(entry, fingerprint.encode())
    return fingerprint


def states_scope(base: Any, *, fingerprint: str, template_hash: str, depth: int) -> str:
    """Return a hash of all that decides chunk states besides the chunks, 64 hexadecimal digits.

    Stricter than the fingerprint of the base model: head weights also serve models that are only
    equal after rounding to bfloat16, and other versions of transformers; chunk states don't.
    `depth` is the number of layers in use.
    """
    config = {
        name: value
        for name, value in base.config.to_dict().items()
        if name not in _NOT_NUMERIC and not name.startswith("_attn_implementation")
    }
    known = [STATES_VERSION, version("transformers"), fingerprint, template_hash, depth, config]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    for parameter in base.parameters():
        digest.update(str(parameter.dtype).encode())
        values = parameter.detach()
        if values.dtype == torch.bfloat16 or not values.is_floating_point():
            continue
        if not torch.equal(values.to(torch.bfloat16).to(values.dtype), values):
            digest.update(values.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensor_digest(parameter: Tensor) -> bytes:
    values = parameter.detach()
    if values.is_floating_point():
        values = values.to(torch.bfloat16).view(torch.int16)
    shape = ",".join(map(str, values.shape)).encode()
    return hashlib.sha256(shape + b":" + values.contiguous().cpu().numpy().tobytes()).digest()
