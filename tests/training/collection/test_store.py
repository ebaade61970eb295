"""Features on disk: whole or not there, and never those of another collection."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from at2_rag.errors import DataError, StorageError
from at2_rag.training.collection.store import SETTINGS_FILE, ShardFeatures, ShardStore, join_shards

SETTINGS: dict[str, Any] = {
    "format": 1,
    "fingerprint": "a",
    "seed": 0,
    "depth": 2,
    "reading": "independent",
    "nested": {"a": [1]},
}
NAMES = ("examples", "counts", "labels", "log_mass", "log_ratio")


def shard(seed: int = 0, counts: tuple[int, ...] = (3, 2)) -> ShardFeatures:
    rng = np.random.default_rng(seed)
    shape = (sum(counts), 2, 3, 4)
    return ShardFeatures(
        examples=np.arange(len(counts), dtype=np.int64) + 10 * seed,
        counts=np.array(counts, dtype=np.int64),
        labels=rng.random(sum(counts)) < 0.5,
        log_mass=rng.normal(size=shape).astype(np.float16),
        log_ratio=rng.normal(size=shape).astype(np.float16),
    )


def same(one: ShardFeatures | None, other: ShardFeatures) -> bool:
    return one is not None and all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in NAMES
    )


def test_what_is_written_is_read_again_later(tmp_path: Path) -> None:
    store = ShardStore(tmp_path / "new" / "folder", ShardFeatures, settings=SETTINGS)
    assert store.read(0) is None
    store.write(0, shard(0))
    store.write(12, shard(1))
    again = ShardStore(tmp_path / "new" / "folder", ShardFeatures, settings=SETTINGS)
    assert same(again.read(0), shard(0)) and same(again.read(12), shard(1))
    assert again.read(1) is None
    assert {path.name for path in again.folder.iterdir()} == {
        SETTINGS_FILE,
        "shard-00000.safetensors",
        "shard-00012.safetensors",
    }


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"seed": 1}, ["seed: 0 there, 1 now"]),
        ({"depth": 3, "reading": "joint"}, ["depth: 2 there, 3 now", "reading: 'independent'"]),
        ({"nested": {"a": [2]}}, ["nested: {'a': [1]} there, {'a': [2]} now"]),
        ({"new": True}, ["new: None there, True now"]),
        ({"seed": None}, ["seed: 0 there, None now"]),
        ({"format": 2}, ["format: 1 there, 2 now"]),
        ({"fingerprint": "b"}, ["fingerprint: 'a' there, 'b' now"]),
    ],
)
def test_other_settings_are_refused_naming_what_differs(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    ShardStore(tmp_path, ShardFeatures, settings=SETTINGS).write(0, shard())
    with pytest.raises(DataError) as error:
        ShardStore(tmp_path, ShardFeatures, settings={**SETTINGS, **changes})
    message = str(error.value)
    assert all(part in message for part in [*parts, str(tmp_path)])
    assert {name for name in SETTINGS if f"{name}: " in message} == set(changes) & set(SETTINGS)
    assert same(ShardStore(tmp_path, ShardFeatures, settings=SETTINGS).read(0), shard())


def test_settings_equal_as_json_are_the_same(tmp_path: Path) -> None:
    ShardStore(tmp_path, ShardFeatures, settings={"depths": (1, 2)})
    ShardStore(tmp_path, ShardFeatures, settings={"depths": [1, 2]})


@pytest.mark.parametrize("damage", ["", "short", "flipped header", "other tensors"])
def test_a_damaged_shard_is_made_again(tmp_path: Path, damage: str) -> None:
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    store.write(0, shard())
    path = tmp_path / "shard-00000.safetensors"
    raw = path.read_bytes()
    damaged = {
        "": b"",
        "short": raw[: len(raw) // 2],
        "flipped header": raw[:9] + bytes([raw[9] ^ 0xFF]) + raw[10:],
        "other tensors": raw.replace(b"log_mass", b"log_loss"),
    }
    path.write_bytes(damaged[damage])
    assert store.read(0) is None
    store.write(0, shard())
    assert same(store.read(0), shard())


def without_hashes(path: Path) -> None:
    """Make a shard one of an older version."""
    save_file(load_file(path), path)


@pytest.mark.parametrize("old", [False, True])
def test_shards_whose_arrays_do_not_fit_together_are_made_again(tmp_path: Path, old: bool) -> None:
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    whole = shard()
    for name in NAMES:
        store.write(0, replace(whole, **{name: getattr(whole, name)[:-1]}))
        if old:
            without_hashes(tmp_path / "shard-00000.safetensors")
        assert store.read(0) is None


@pytest.mark.parametrize("place", [-1, -4, -100])
def test_a_shard_with_a_flipped_byte_is_made_again(tmp_path: Path, place: int) -> None:
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    store.write(0, shard())
    path = tmp_path / "shard-00000.safetensors"
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x01
    path.write_bytes(raw)
    assert store.read(0) is None


def test_shards_of_older_versions_are_read(tmp_path: Path) -> None:
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    store.write(0, shard())
    without_hashes(tmp_path / "shard-00000.safetensors")
    assert same(store.read(0), shard()) and same(store.read(0, [0, 1]), shard())


def test_a_shard_of_another_collection_is_refused(tmp_path: Path) -> None:
    other = ShardStore(tmp_path / "other", ShardFeatures, settings={**SETTINGS, "seed": 1})
    other.write(0, shard())
    store = ShardStore(tmp_path / "own", ShardFeatures, settings=SETTINGS)
    path = tmp_path / "own" / "shard-00000.safetensors"
    path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    with pytest.raises(DataError, match=r"shard-00000\.safetensors is of another collection than"):
        store.read(0)
    assert path.exists()


@pytest.mark.parametrize("planned", [[0], [0, 1, 2], [0, 2]])
def test_a_shard_of_other_examples_is_refused(tmp_path: Path, planned: list[int]) -> None:
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    store.write(0, shard())
    without_hashes(tmp_path / "shard-00000.safetensors")
    with pytest.raises(DataError, match=f"holds other examples than the {len(planned)} that belo"):
        store.read(0, planned)


def test_shards_that_nothing_says_what_they_are_of_are_refused(tmp_path: Path) -> None:
    ShardStore(tmp_path, ShardFeatures, settings=SETTINGS).write(0, shard())
    (tmp_path / SETTINGS_FILE).unlink()
    with pytest.raises(DataError, match=r"holds 1 shards but no collection\.json.*put that file b"):
        ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    assert not (tmp_path / SETTINGS_FILE).exists()


def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    (tmp_path / "shard-00000.safetensors").mkdir()
    with pytest.raises(StorageError, match=r"00000\.safetensors can't be read \(Is a directory\)"):
        store.read(0)


def test_two_runs_on_one_folder_are_not_in_each_others_way(tmp_path: Path) -> None:
    code = """
import sys
from tests.training.collection.test_store import SETTINGS, shard
from at2_rag.training.collection.store import ShardFeatures, ShardStore
for number in range(200):
    store = ShardStore(sys.argv[1], ShardFeatures, settings=SETTINGS)
    store.write(number % 2, shard(number % 2))
"""
    root = Path(__file__).parents[3]
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root) for _ in "ab"]
    assert [run.wait() for run in runs] == [0, 0]
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    assert same(store.read(0), shard(0)) and same(store.read(1), shard(1))
    assert not list(tmp_path.glob("*.part"))


def test_a_shard_half_written_is_not_there(tmp_path: Path) -> None:
    store = ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    store.write(0, shard())
    whole = (tmp_path / "shard-00000.safetensors").read_bytes()
    (tmp_path / "shard-00000.safetensors").unlink()
    (tmp_path / "shard-00000.part").write_bytes(whole[:100])
    assert store.read(0) is None
    store.write(0, shard())
    assert same(store.read(0), shard())
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_leaves_the_old_shard_whole(tmp_path: Path) -> None:
    ShardStore(tmp_path, ShardFeatures, settings=SETTINGS).write(0, shard())
    code = """
import resource, signal, sys
import numpy as np
from tests.training.collection.test_store import SETTINGS, shard
from at2_rag.training.collection.store import ShardFeatures, ShardStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = ShardStore(sys.argv[1], ShardFeatures, settings=SETTINGS)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    store.write(0, shard(seed=1, counts=(500,)))
except Exception as error:
    print(type(error).__name__, error)
"""
    if sys.platform == "win32":
        pytest.skip("the size of files can't be limited")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[3],
    )
    assert ran.returncode == 0 and "File too large" in ran.stdout, ran.stdout + ran.stderr
    [line] = ran.stdout.splitlines()
    assert line.startswith("StorageError ") and "the 1 shards written before are kept" in line
    assert "a rerun goes on from there" in line
    assert not list(tmp_path.glob("*.part"))
    assert same(ShardStore(tmp_path, ShardFeatures, settings=SETTINGS).read(0), shard())


@pytest.mark.parametrize("damage", ["", '{"seed": 0', "[]", "\xff"])
def test_settings_that_cannot_be_read_are_refused(tmp_path: Path, damage: str) -> None:
    ShardStore(tmp_path, ShardFeatures, settings=SETTINGS).write(0, shard())
    (tmp_path / SETTINGS_FILE).write_bytes(damage.encode("latin-1"))
    with pytest.raises(DataError, match=r"collection\.json holds no settings.*remove its folder"):
        ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    assert (tmp_path / "shard-00000.safetensors").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/collection\.json can't be written"):
        ShardStore(tmp_path / "file", ShardFeatures, settings=SETTINGS)


def test_settings_are_for_people_too(tmp_path: Path) -> None:
    ShardStore(tmp_path, ShardFeatures, settings=SETTINGS)
    assert json.loads((tmp_path / SETTINGS_FILE).read_text(encoding="utf-8")) == SETTINGS


def test_shards_are_joined_in_order() -> None:
    joined = join_shards([shard(0), shard(1, (1,)), shard(2, (4, 1))])
    assert joined.examples.tolist() == [0, 1, 10, 20, 21]
    assert joined.counts.tolist() == [3, 2, 1, 4, 1]
    assert len(joined.labels) == len(joined.log_mass) == len(joined.log_ratio) == 11
    assert np.array_equal(joined.log_ratio[5:6], shard(1, (1,)).log_ratio)
    assert np.array_equal(joined.labels[6:], shard(2, (4, 1)).labels)
