"""Chunk states in memory and on disk: written, read, bounded and counted."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from at2_rag import ChunkCache
from at2_rag.errors import InputError, StorageError
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.states.files import DEFAULT_MAX_BYTES, StateCounts, StateFiles
from tests.states.states import key_of, paths, same, state


def test_states_in_memory_beyond_the_bound_are_forgotten_the_oldest_first() -> None:
    store = ChunkCache(max_memory_bytes=500)
    for name in "abc":
        store[name] = state(1)
    assert store["a"].nbytes == 160
    store["d"] = state(1)
    assert set(store) == {"a", "c", "d"}
    store["e"] = state(4)
    assert set(store) == {"a", "c", "d"}, "larger than all there is room for"
    store["f"] = state(3)
    assert set(store) == {"f"} and len(store) == 1
    assert store.counts.memory_bytes == 480


@pytest.mark.parametrize("tokens", [70, 1])
def test_a_cache_reads_what_another_wrote(tmp_path: Path, tokens: int) -> None:
    written = state(tokens)
    ChunkCache(tmp_path / "s")[key_of("a")] = written
    store = ChunkCache(tmp_path / "s")
    assert key_of("a") in store and key_of("b") not in store and "a" not in list(store)
    for _ in range(2):
        assert same(store[key_of("a")], written)
    assert store.get(key_of("b")) is None
    counts = store.counts
    assert (counts.disk_hits, counts.memory_hits, counts.misses) == (1, 1, 1)
    del store[key_of("a")]
    with pytest.raises(KeyError):
        del store[key_of("a")]
    assert len(store) == 0 and paths(tmp_path / "s") == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_exact_states_come_back_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    written = KeptHeads(torch.randn(4, 70, 8).to(dtype))
    ChunkCache(tmp_path)[key_of("a")] = written
    assert same(ChunkCache(tmp_path)[key_of("a")], written)


def test_a_view_is_written_without_the_rest_of_its_tensor(tmp_path: Path) -> None:
    whole = state(50)
    view = whole.tokens_at(slice(10, 20))
    store = ChunkCache(tmp_path, max_memory_bytes=0)
    store[key_of("view")] = view
    for _ in range(3):
        assert same(store[key_of("view")], view)
    assert store.counts == StateCounts(0, 3, 0, 0, 0, 0, 0, 0)
    assert paths(tmp_path)[0].stat().st_size < 10 * 160 + 400


def test_the_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "states"
    ChunkCache(folder)[key_of("a")] = state(1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(paths(folder)[0].stat().st_mode) == 0o600
    (tmp_path / "old").mkdir(mode=0o755)
    StateFiles(tmp_path / "old")
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o755, "not ours to change"


# --- the bound of the folder ------------------------------------------------------------------


def test_files_beyond_the_bound_are_removed_the_least_recently_used_first(tmp_path: Path) -> None:
    size = _file_size(tmp_path / "probe")
    files = StateFiles(tmp_path / "s", max_bytes=20 * size)
    for number in range(20):
        files.put(key_of(number), state(50, seed=number))
        for path in paths(tmp_path / "s"):  # a second older, on any file system
            time = path.stat().st_mtime_ns - 10**9
            os.utime(path, ns=(time, time))
    assert files.size().states == 20
    assert files.get(key_of(0)) is not None  # used now
    files.put(key_of(20), state(50))
    left = set(files.keys())
    gone = [number for number in range(21) if key_of(number) not in left]
    assert gone == list(range(1, 1 + len(gone))) and 1 <= len(gone) <= 3
    for number in range(21, 100):
        files.put(key_of(number), state(50))
        assert files.size().nbytes <= 20 * size
    assert files.size().states >= 17
    assert files.unwritten == files.damaged == 0


def test_files_of_others_count_towards_the_bound(tmp_path: Path) -> None:
    size = _file_size(tmp_path / "probe")
    one, other = (StateFiles(tmp_path / "s", max_bytes=32 * size) for _ in range(2))
    for number in range(150):
        (one if number % 3 else other).put(key_of(number), state(50))
        assert one.size().nbytes <= (32 + 2 * 2) * size  # a sixteenth for each
    assert one.size().states >= 26


def test_a_state_larger_than_the_bound_is_not_written(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path, max_disk_bytes=1000)
    store[key_of("large")] = state(50)
    assert store.counts.too_large == 1 and store.disk_size.states == 0
    assert store.counts.unwritten == 0
    assert same(store[key_of("large")], state(50)), "memory has it"


def test_a_lower_bound_holds_at_once(tmp_path: Path) -> None:
    size = _file_size(tmp_path)
    files = StateFiles(tmp_path, max_bytes=20 * size)
    for number in range(10):
        files.put(key_of(number), state(50))
    assert StateFiles(tmp_path, max_bytes=5 * size).size().states == 4, "and room for one more"
    assert StateFiles(tmp_path, max_bytes=1).size().states == 0


def test_the_bound_is_noted_in_the_folder(tmp_path: Path) -> None:
    notes = tmp_path / "folder.json"
    StateFiles(tmp_path)
    assert not notes.exists()
    StateFiles(tmp_path, max_bytes=12345)
    assert json.loads(notes.read_text()) == {"max_bytes": 12345}
    assert StateFiles(tmp_path).max_bytes == 12345


@pytest.mark.parametrize(
    "notes",
    ["", "[", "[]", "{}", '{"max_bytes": "9"}', '{"max_bytes": -1}', "[" * 10**5]
    + ['{"max_bytes": ' + "9" * 400 + "}"],
    ids=range(8),
)
def test_damaged_notes_are_as_none(tmp_path: Path, notes: str) -> None:
    (tmp_path / "folder.json").write_text(notes)
    assert StateFiles(tmp_path).max_bytes == DEFAULT_MAX_BYTES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_memory_bytes": -1}, "max_memory_bytes is -1; pass a number of bytes from 0"),
        ({"max_disk_bytes": 0}, "max_disk_bytes is 0; pass a positive number of bytes"),
    ],
)
def test_unusable_options_are_refused(tmp_path: Path, options: Any, message: str) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(InputError, match=message):
            ChunkCache(folder, **options)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be made .*; choose another folder"):
        ChunkCache(tmp_path / "file" / "states")


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    foreign = [tmp_path / key_of("blob"), tmp_path / "probe", tmp_path / "x.state"]
    for path in foreign:
        path.write_bytes(b"theirs" * 1000)
    files = StateFiles(tmp_path, max_bytes=3000)
    files.put(key_of("a"), state(2))
    assert files.keys() == [key_of("a")] and files.size().states == 1
    ChunkCache(tmp_path).clear()
    assert sorted(tmp_path.iterdir()) == sorted(foreign)
    assert all(path.read_bytes() == b"theirs" * 1000 for path in foreign)


def test_clearing_takes_damaged_files_and_the_folder_along(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path / "s", max_disk_bytes=10**6)
    for number in range(5):
        store[key_of(number)] = state(2)
    paths(tmp_path / "s")[2].write_bytes(b"damaged")
    store.clear()
    assert len(store) == 0 and store.counts.memory_bytes == 0
    assert not (tmp_path / "s").exists()
    store[key_of("a")] = state(2)
    assert same(store[key_of("a")], state(2))


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a" * 63, "A" * 64])
def test_a_key_is_no_path(tmp_path: Path, key: str) -> None:
    files = StateFiles(tmp_path)
    for use in (files.get, files.has, files.remove, lambda key: files.put(key, state(1))):
        with pytest.raises(InputError, match="is not a key of a chunk state"):
            use(key)


def _file_size(folder: Path) -> int:
    files = StateFiles(folder)
    files.put(key_of("probe"), state(50))
    return files.size().nbytes
