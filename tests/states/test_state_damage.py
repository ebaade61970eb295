"""The chunk cache under damage, kills, full disks and races: real files and processes."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from at2_rag import ChunkCache
from at2_rag.reading.chunk_states import encode_prefix, encode_sources
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.states.files import DEFAULT_MAX_BYTES, StateFiles, _digest
from tests.independent_reading import CountingModel, layout_of
from tests.states.states import ROUNDING, key_of, paths, pruner, same, scores, state
from tests.tiny_models import tiny_model

# --- files that are not as they were written ---------------------------------------------------


def test_no_single_damaged_byte_goes_unnoticed(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.put(key_of("a"), state(3))
    [path] = paths(tmp_path)
    whole = path.read_bytes()
    for offset in range(len(whole)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        assert files.get(key_of("a")) is None
        assert not path.exists(), "dropped"
    assert files.damaged == len(whole)
    for data in [*(whole[:size] for size in range(0, len(whole), 7)), whole[:-1], whole + b"\0"]:
        path.write_bytes(data)
        assert files.get(key_of("a")) is None
    path.write_bytes(whole)
    assert same(files.get(key_of("a")), state(3))


def test_a_state_under_another_key_is_damaged(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.put(key_of("a"), state(3))
    [path] = paths(tmp_path)
    path.rename(tmp_path / f"{key_of('b')}.state")
    assert files.get(key_of("a")) is None and files.damaged == 0
    assert files.get(key_of("b")) is None and files.damaged == 1


def forge(path: Path, body: bytes) -> None:
    """Write a checksum to match, as whoever may write to the folder can make it."""
    path.write_bytes(b"at2rag02" + _digest(path.stem, memoryview(body)) + body)


@pytest.mark.parametrize(
    "body", [b"", b"{}", save({"keys": torch.zeros(1)}), b"\x80\x04." * 30], ids=range(4)
)
def test_a_checksum_alone_makes_no_state(tmp_path: Path, body: bytes) -> None:
    """The last body is a pickle, which nothing here would open."""
    files = StateFiles(tmp_path)
    forge(tmp_path / f"{key_of('a')}.state", body)
    assert files.get(key_of("a")) is None and files.damaged == 1


@pytest.mark.parametrize(
    "shape",
    [(0, 0, 0), (16, 3, 0), (0, 3, 8), (16, 0, 8), (16, 3, 9), (16, 4, 8), (2**32 - 1,) * 3],
    ids=str,
)
def test_forged_shapes_make_no_state(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    files = StateFiles(tmp_path)
    files.put(key_of("a"), state(3))
    [path] = paths(tmp_path)
    forge(path, struct.pack("<4I", 0, *shape) + path.read_bytes()[8 + 16 + 16 :])
    assert files.get(key_of("a")) is None and files.damaged == 1


@pytest.mark.parametrize("cut", ["tokens", "heads", "dtype", "rounded"])
def test_a_whole_state_of_another_shape_is_read_anew(cut: str) -> None:
    model = CountingModel(tiny_model())
    layout, prefix = layout_of(model, [12, 3, 40, 1, 25]), encode_prefix(model)
    store = ChunkCache()
    encode_sources(model, prefix, layout.source_ids, store=store)
    for key, kept in list(store.items()):
        store[key] = {
            "tokens": KeptHeads(kept.levels[:, 1:]),
            "heads": KeptHeads(kept.levels[1:]),
            "dtype": KeptHeads(kept.levels.bfloat16()),
            "rounded": KeptHeads.rounded(kept.levels),
        }[cut]
    model.passes.clear()
    encode_sources(model, prefix, layout.source_ids, store=store)
    assert model.passes == [12 + 3 + 40 + 1 + 25]


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e7, -1e7])
def test_forged_numbers_cost_a_reading(tmp_path: Path, number: float) -> None:
    expected = scores(pruner())
    assert scores(pruner(ChunkCache(tmp_path))) == expected
    for path in paths(tmp_path):
        forge(path, path.read_bytes()[24:-4] + np.float32(number).tobytes())
    cache = ChunkCache(tmp_path)
    assert scores(pruner(cache)) == expected
    assert cache.counts.damaged == cache.counts.misses == 9


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _elsewhere(path: Path) -> None:
    path.symlink_to(path.with_name("secret"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no FIFOs")
@pytest.mark.parametrize("make", [_fifo, _device, _elsewhere])
def test_what_is_no_regular_file_is_no_state(tmp_path: Path, make: Callable[[Path], None]) -> None:
    StateFiles(tmp_path).put(key_of("a"), state(3))
    [path] = paths(tmp_path)
    path.rename(tmp_path / "secret")
    for name in (path.name, "folder.json"):
        make(tmp_path / name)
    files = StateFiles(tmp_path)
    assert files.max_bytes == DEFAULT_MAX_BYTES
    assert files.get(key_of("a")) is None and not files.has(key_of("a"))
    assert files.size().states == 0 and files.keys() == []
    files.put(key_of("a"), state(3))
    assert same(files.get(key_of("a")), state(3)) and path.is_file() and not path.is_symlink()
    assert (tmp_path / "secret").exists()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 8
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_flip, Path.unlink])
def test_damage_costs_a_query_nothing_but_work(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    expected = pytest.approx(scores(pruner()), abs=ROUNDING)
    assert scores(pruner(ChunkCache(tmp_path))) == expected
    for path in paths(tmp_path)[::2]:
        damage(path)
    store = ChunkCache(tmp_path)
    assert scores(pruner(store)) == expected
    counts = store.counts
    assert (counts.disk_hits, counts.misses) == (4, 5)
    assert counts.damaged == (5 if damage is _flip else 0)
    again = ChunkCache(tmp_path)
    assert scores(pruner(again)) == expected
    assert again.counts.disk_hits == 9


def test_the_folder_vanishes_under_a_running_cache(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path / "s", max_memory_bytes=0)
    cached = pruner(store)
    expected = pytest.approx(scores(cached), abs=ROUNDING)
    shutil.rmtree(tmp_path / "s")
    assert scores(cached) == expected
    assert store.disk_size.states == 9
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s").write_text("a file now")
    assert scores(cached) == expected
    assert store.counts.unwritten == 9 and store.disk_size.states == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        store = ChunkCache(disk / "s")
        expected = pytest.approx(scores(pruner()), abs=ROUNDING)
        for _ in range(2):
            assert scores(pruner(store)) == expected
        assert store.counts.unwritten > 0 and 0 < store.disk_size.states < 9
        assert [path for path in (disk / "s").iterdir() if path.suffix != ".state"] == []
        store = ChunkCache(disk / "s")
        assert scores(pruner(store)) == expected
        assert store.counts.disk_hits > 0 and store.counts.damaged == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- several processes and threads --------------------------------------------------------------


def _fill(folder: Path, max_bytes: int, seed: int = 0, killed_at: int = 0) -> None:
    """Write and read 40 states in a child process, which may be killed at a write."""
    writes = iter(range(1, 10**6))

    def kill(event: str, _: object) -> None:
        if event == "os.rename" and next(writes) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    files = StateFiles(folder, max_bytes=max_bytes)
    order = list(range(40)) * 5
    random.Random(seed).shuffle(order)
    for number in order:
        read = files.get(key_of(number))
        if read is None:
            files.put(key_of(number), state(200, seed=number))
        else:
            assert same(read, state(200, seed=number)), number
    assert files.damaged == files.unwritten == 0


def _exit_codes(*arguments: tuple[object, ...]) -> list[int | None]:
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_fill, args=one) for one in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=60)
    return [child.exitcode for child in children]


forks = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with torch in it")


@forks
def test_processes_fill_and_empty_one_folder_at_once(tmp_path: Path) -> None:
    max_bytes = 400_000  # less than half of all states
    folder = tmp_path / "s"
    assert _exit_codes(*((folder, max_bytes, seed) for seed in range(2))) == [0, 0]
    assert StateFiles(folder).size().nbytes <= max_bytes * 9 // 8
    assert list(folder.glob("*part")) == []


@forks
def test_a_killed_process_leaves_whole_states_and_one_leftover(tmp_path: Path) -> None:
    assert _exit_codes((tmp_path, 10**9, 0, 12)) == [-signal.SIGKILL]
    files = StateFiles(tmp_path)
    numbers = {key_of(number): number for number in range(40)}
    assert len(files.keys()) == 10  # the first of the twelve files holds the bound
    for key in files.keys():
        assert same(files.get(key), state(200, seed=numbers[key]))
    assert files.damaged == 0
    [leftover] = tmp_path.glob("*part")
    os.utime(leftover, (0, 0))
    StateFiles(tmp_path)
    assert not leftover.exists()


def test_threads_share_a_pruner_and_a_small_cache(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path, max_memory_bytes=6000, max_disk_bytes=60_000)
    cached, expected = pruner(store), scores(pruner())
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: scores(cached), range(20)))
    np.testing.assert_allclose(results, [expected] * 20, atol=ROUNDING)
    counts = store.counts
    assert counts.memory_hits + counts.disk_hits + counts.misses == 20 * 9
    assert counts.damaged == counts.unwritten == 0 and counts.memory_bytes <= 6000
