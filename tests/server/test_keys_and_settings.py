"""Keys and settings by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from at2_rag import InputError
from at2_rag.server.keys import KEYS_VARIABLE, Keys, read_keys
from at2_rag.server.settings import ServerSettings, numbers


def test_keys_of_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text("# comment\n one \n\ntwo\n")
    monkeypatch.setenv(KEYS_VARIABLE, "three, four five")
    assert read_keys(path) == ("one", "two", "three", "four", "five")
    monkeypatch.delenv(KEYS_VARIABLE)
    assert read_keys(None) == ()


@pytest.mark.parametrize("value", ["", ",", " , \n"])
def test_a_variable_without_a_key_opens_nothing(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, value)
    (tmp_path / "keys").write_text("one\n")
    for file in (None, tmp_path / "keys"):
        with pytest.raises(InputError, match=f"{KEYS_VARIABLE} is set, but has no key"):
            read_keys(file)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe"])
def test_a_file_without_a_key_opens_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(InputError, match="keys"):
        read_keys(path)


def test_a_key_is_compared_whole() -> None:
    keys = Keys(["käse", "b"])
    assert keys.allow("Bearer käse".encode()) and keys.allow(b"bearer  b ")
    for wrong in (b"", b"Bearer", b"Bearer ", b"Bearer a", b"b", b"Basic b", b"Bearer b b"):
        assert not keys.allow(wrong), wrong
    assert Keys([]).allow(b"")


@pytest.mark.parametrize("name", [number.name for number in numbers()])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True])
def test_numbers_are_checked(name: str, value: float) -> None:
    settings: Any = {name: value}
    with pytest.raises(InputError, match=f"{name} is .*; pass a finite number of at least"):
        ServerSettings(**settings)


def test_a_body_is_no_larger_than_all_together() -> None:
    with pytest.raises(InputError, match="max_body_bytes is 101, .* is 100; raise the latter"):
        ServerSettings(max_body_bytes=101, max_bytes_in_flight=100)


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(ServerSettings(api_keys=("secret",)))
    with pytest.raises(InputError, match="blank"):
        ServerSettings(api_keys=(" ",))
