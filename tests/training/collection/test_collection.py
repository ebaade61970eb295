"""Rows on disk: whole or not there, never those of another collection."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag.errors import DataError, InputError, StorageError
from at2_rag.training.collection.collection import (
    SETTINGS_FILE,
    Collected,
    Collection,
    Row,
    reading_depth,
)

SETTINGS: dict[str, Any] = {"fingerprint": "a", "seed": 0, "depth": 2, "nested": {"a": [1]}}
SHARDS = [[0, 1, 2], [3, 4]]
NAMES = ["shard-00000.safetensors", "shard-00001.safetensors"]


class Squares(Collection):
    """Gives every item a row, but the item 1."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any] = SETTINGS,
        shards: Sequence[Sequence[int]] = SHARDS,
    ) -> None:
        super().__init__(folder, settings, shards, left_out={9: "never read"})
        self.items_read: list[int] = []

    def read(self, item: int) -> Row | str:
        self.items_read.append(item)
        if item == 1:
            return "has no square"
        numbers = np.random.default_rng(item).normal(size=(3, 2)).astype(np.float16)
        return {"square": np.array([item**2]), "kept": numbers > 0, "numbers": numbers}


def same(one: Collected, other: Collected) -> bool:
    return (
        list(one.rows) == list(other.rows)
        and one.left_out == other.left_out
        and all(
            np.array_equal(values, other.rows[item][name])
            for item, row in one.rows.items()
            for name, values in row.items()
        )
    )


def test_what_is_read_is_kept_and_not_read_again(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = Squares(tmp_path / "new" / "folder")
    collected = first.collect(progress=lambda *numbers: steps.append(numbers), workers=2)
    assert sorted(first.items_read) == [0, 1, 2, 3, 4]
    assert list(collected.rows) == [0, 2, 3, 4]
    assert collected.rows[3]["square"].tolist() == [9]
    assert collected.left_out == {1: "has no square", 9: "never read"}
    assert collected.reasons == {"has no square": 1, "never read": 1}
    assert steps == [(done, 5) for done in range(6)]
    assert {path.name for path in first.folder.iterdir()} == {SETTINGS_FILE, *NAMES}
    again = Squares(first.folder)
    assert same(again.collect(), collected) and again.items_read == []
    settings = json.loads((first.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    assert settings.items() > SETTINGS.items() and "format" in settings


def test_shards_can_be_read_by_several(tmp_path: Path) -> None:
    one, other = Squares(tmp_path), Squares(tmp_path)
    assert one.missing_shards() == [0, 1] and list(one.parts()) == [one]
    steps: list[int] = []
    assert list(other.read_shards([1], workers=2, progress=steps.append)) == [3, 4]
    assert steps == [1, 2] and one.missing_shards() == [0]
    assert one.read_shards([0])[1] == "has no square" and one.missing_shards() == []
    last = Squares(tmp_path)
    assert same(last.collect(), Squares(tmp_path / "by-one").collect()) and last.items_read == []
    for name in (SETTINGS_FILE, *NAMES):
        assert (tmp_path / name).read_bytes() == (tmp_path / "by-one" / name).read_bytes()
    different = Squares(tmp_path, {**SETTINGS, "seed": 1})
    for refuse in (different.missing_shards, lambda: different.read_shards([0])):
        with pytest.raises(DataError, match="seed: 0 there, 1 now"):
            refuse()
    assert different.items_read == []


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"depth": 3, "fingerprint": "b"}, ["depth: 2 there, 3 now", "fingerprint: 'a' there"]),
        ({"nested": {"a": [2]}}, ["nested: {'a': [1]} there, {'a': [2]} now"]),
        ({"new": True}, ["new: None there, True now"]),
        ({"format": 1}, ["format: 5 there, 1 now"]),
    ],
)
def test_other_settings_are_refused_naming_what_differs(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    assert not Squares(tmp_path / "nothing").check()
    whole = Squares(tmp_path).collect()
    assert Squares(tmp_path).check()
    for refuse in (Collection.check, Collection.collect):
        with pytest.raises(DataError) as error:
            refuse(Squares(tmp_path, {**SETTINGS, **changes}))
        assert all(part in str(error.value) for part in [*parts, str(tmp_path)])
        assert "nested: " not in str(error.value) or "nested" in changes
    assert same(Squares(tmp_path).collect(), whole)


@pytest.mark.parametrize("damage", ["empty", "short", "header", "other tensors", "flipped bit"])
def test_a_damaged_shard_is_read_again(tmp_path: Path, damage: str) -> None:
    whole, path = Squares(tmp_path).collect(), tmp_path / NAMES[0]
    raw = path.read_bytes()
    damaged = {
        "empty": b"",
        "short": raw[: len(raw) // 2],
        "header": raw[:9] + bytes([raw[9] ^ 0xFF]) + raw[10:],
        "other tensors": raw.replace(b"square", b"sphere"),
        "flipped bit": raw[:-1] + bytes([raw[-1] ^ 0x01]),
    }
    path.write_bytes(damaged[damage])
    again = Squares(tmp_path)
    assert same(again.collect(), whole) and again.items_read == [0, 1, 2]
    assert path.read_bytes() == raw


def test_a_shard_of_another_collection_is_refused(tmp_path: Path) -> None:
    Squares(tmp_path / "other", {**SETTINGS, "seed": 1}).collect()
    for name in ("settings", "items"):
        Squares(tmp_path / name).collect()
    others = {"settings": tmp_path / "other" / NAMES[0], "items": tmp_path / "items" / NAMES[1]}
    for name, other in others.items():
        (tmp_path / name / NAMES[0]).write_bytes(other.read_bytes())
        with pytest.raises(DataError, match=r"00000\.safetensors is of another collection than"):
            Squares(tmp_path / name).collect()
        assert (tmp_path / name / NAMES[0]).exists()


@pytest.mark.parametrize("damage", [b'{"seed": 0', b"[]", b"\xff"])
def test_settings_that_cannot_be_read_are_refused(tmp_path: Path, damage: bytes) -> None:
    Squares(tmp_path).collect()
    (tmp_path / SETTINGS_FILE).write_bytes(damage)
    with pytest.raises(DataError, match=r"collection\.json holds no settings.*remove its folder"):
        Squares(tmp_path).collect()
    (tmp_path / SETTINGS_FILE).unlink()
    with pytest.raises(DataError, match=r"holds 2 shards but no collection\.json.*put that file b"):
        Squares(tmp_path).collect()
    assert not (tmp_path / SETTINGS_FILE).exists()


def test_what_cannot_be_read_or_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/collection\.json can't be written"):
        Squares(tmp_path / "file").collect()
    Squares(tmp_path / "folder").collect()
    (tmp_path / "folder" / NAMES[0]).unlink()
    (tmp_path / "folder" / NAMES[0]).mkdir()
    with pytest.raises(StorageError, match=r"00000\.safetensors can't be read \(Is a directory\)"):
        Squares(tmp_path / "folder").collect()


def test_a_full_disk_ends_in_one_error_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Squares(tmp_path, shards=SHARDS[:1]).collect()

    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("at2_rag.training.collection.collection.write_whole", fail)
    message = "No space left on device.*; the 1 shards written before are kept and a rerun goes on"
    with pytest.raises(StorageError, match=message):
        Squares(tmp_path).collect()


def test_no_row_at_all_is_an_error(tmp_path: Path) -> None:
    message = r"none of the 2 examples can be read \(1 has no square, 1 never read\); pass others"
    with pytest.raises(InputError, match=message):
        Squares(tmp_path, shards=[[1]]).collect()
    with pytest.raises(InputError, match=r"none of the 1 examples can be read \(1 never read\)"):
        Squares(tmp_path / "nothing", shards=[]).collect()
    assert not (tmp_path / "nothing").exists()


def test_two_runs_on_one_folder_are_not_in_each_others_way(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.training.collection.test_collection import NAMES, Squares
for number in range(50):
    (Path(sys.argv[1]) / NAMES[number % 2]).unlink(missing_ok=True)
    Squares(Path(sys.argv[1])).collect()
"""
    root = Path(__file__).parents[3]
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root) for _ in "ab"]
    assert [run.wait() for run in runs] == [0, 0]
    assert same(Squares(tmp_path).collect(), Squares(tmp_path / "whole").collect())
    assert not list(tmp_path.glob("*.part"))


def test_the_depth_to_read_is_that_of_what_is_there(tmp_path: Path) -> None:
    for depth in (2, 5, 9):
        Squares(tmp_path / str(depth), {"depth": depth}).collect()
    folders = [tmp_path / name for name in ("2", "5", "9", "missing")]
    assert reading_depth(1, folders, layers=6) == 5
    assert reading_depth(6, folders[:2], layers=6) == 6
