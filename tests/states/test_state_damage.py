"""The chunk cache under damage, kills, full disks and races: real files and processes."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from at2_rag import AT2Pruner, ChunkCache
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.chunk_states import encode_prefix, encode_sources
from at2_rag.states.files import StateFiles, _digest
from tests.independent_reading import CountingModel, layout_of
from tests.states.test_store import key_of, paths, same, state
from tests.tiny_models import tiny_model, tiny_tokenizer

CHUNKS = [
    f"Emma {number} was written by Jane Austen in Chawton." * (1 + number % 3)
    for number in range(9)
]
QUERY = "Who wrote Emma 4?"
LENGTHS = [12, 3, 40, 1, 25]


def pruner(store: ChunkCache | None = None) -> AT2Pruner:
    return AT2Pruner(
        LoadedModel(tiny_model(), tiny_tokenizer()), head_weights="uniform", chunk_cache=store
    )


def scores(pruner: AT2Pruner) -> list[float]:
    return [chunk.score for chunk in pruner.score(QUERY, CHUNKS)]


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
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert files.get(key_of("a")) is None
    path.write_bytes(whole + b"\0")
    assert files.get(key_of("a")) is None
    path.write_bytes(whole)
    read = files.get(key_of("a"))
    assert read is not None and same(read, state(3))


def test_a_state_under_another_key_is_damaged(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.put(key_of("a"), state(3))
    [path] = paths(tmp_path)
    path.rename(tmp_path / f"{key_of('b')}.state")
    assert files.get(key_of("a")) is None and files.damaged == 0
    assert files.get(key_of("b")) is None and files.damaged == 1


@pytest.mark.parametrize(
    "body", [b"", b"{}", save({"keys": torch.zeros(1)}), b"\x80\x04." * 30], ids=range(4)
)
def test_a_checksum_alone_makes_no_state(tmp_path: Path, body: bytes) -> None:
    """The last body is a pickle, which nothing here would open."""
    files = StateFiles(tmp_path)
    key = key_of("a")
    (tmp_path / f"{key}.state").write_bytes(b"at2rag01" + _digest(key, memoryview(body)) + body)
    assert files.get(key) is None and files.damaged == 1


def test_a_whole_state_of_other_shapes_is_read_anew() -> None:
    model = CountingModel(tiny_model())
    layout, prefix = layout_of(model, LENGTHS), encode_prefix(model)
    store = ChunkCache()
    encode_sources(model, prefix, layout.source_ids, store=store)
    for key, kept in list(store.items()):
        store[key] = type(kept)(kept.keys[:, :, 1:], kept.values)
    model.passes.clear()
    encode_sources(model, prefix, layout.source_ids, store=store)
    assert model.passes == [sum(LENGTHS)]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 8
    path.write_bytes(data)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [_flip, _cut, _lose])
def test_damage_costs_a_query_nothing_but_work(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    expected = scores(pruner())
    assert scores(pruner(ChunkCache(tmp_path))) == pytest.approx(expected, abs=1e-6)
    for path in paths(tmp_path)[::2]:
        damage(path)
    store = ChunkCache(tmp_path)
    assert scores(pruner(store)) == pytest.approx(expected, abs=1e-6)
    counts = store.counts
    assert (counts.disk_hits, counts.misses) == (4, 5)
    assert counts.damaged == (0 if damage is _lose else 5)
    again = ChunkCache(tmp_path)
    assert scores(pruner(again)) == pytest.approx(expected, abs=1e-6)
    assert again.counts.disk_hits == 9


def test_the_folder_vanishes_under_a_running_cache(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path / "s", max_memory_bytes=0)
    cached = pruner(store)
    expected = scores(cached)
    shutil.rmtree(tmp_path / "s")
    assert scores(cached) == pytest.approx(expected, abs=1e-6)
    assert store.disk_size.states == 9
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s").write_text("a file now")
    assert scores(cached) == pytest.approx(expected, abs=1e-6)
    assert store.counts.unwritten == 9 and store.disk_size.states == 0


# --- disks without room -------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        store = ChunkCache(disk / "s")
        expected = scores(pruner())
        for _ in range(2):
            assert scores(pruner(store)) == pytest.approx(expected, abs=1e-6)
        assert store.counts.unwritten > 0 and 0 < store.disk_size.states < 9
        assert [path for path in (disk / "s").iterdir() if path.suffix != ".state"] == []
        store = ChunkCache(disk / "s")
        assert scores(pruner(store)) == pytest.approx(expected, abs=1e-6)
        assert store.counts.disk_hits > 0 and store.counts.damaged == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- several processes and threads --------------------------------------------------------------

FILLING = """
import os, random, signal, sys
from at2_rag.states.files import StateFiles
from tests.states.test_store import key_of, same, state
writes = 0
def kill(event, arguments):
    global writes
    if event == "os.rename":
        writes += 1
        if writes == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
files = StateFiles(sys.argv[1], max_bytes=int(sys.argv[2]))
order = list(range(40)) * 5
random.Random(int(sys.argv[3])).shuffle(order)
for number in order:
    read = files.get(key_of(number))
    if read is None:
        files.put(key_of(number), state(200, seed=number))
    else:
        assert same(read, state(200, seed=number)), number
print(files.damaged, files.unwritten)
"""


def _start(
    folder: Path, *, max_bytes: int, seed: int = 0, killed_at: int = 0
) -> subprocess.Popen[str]:
    arguments = [str(folder), str(max_bytes), str(seed), str(killed_at)]
    return subprocess.Popen(
        [sys.executable, "-c", FILLING, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_fill_and_empty_one_folder_at_once(tmp_path: Path) -> None:
    max_bytes = 400_000  # less than half of all states
    children = [_start(tmp_path / "s", max_bytes=max_bytes, seed=seed) for seed in range(2)]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert out.split() == ["0", "0"]
    assert StateFiles(tmp_path / "s").size().nbytes <= max_bytes * 9 // 8
    assert list((tmp_path / "s").glob("*part")) == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_leaves_whole_states_and_one_leftover(tmp_path: Path) -> None:
    child = _start(tmp_path / "s", max_bytes=10**9, killed_at=12)
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    files = StateFiles(tmp_path / "s")
    keys = {key_of(number): number for number in range(40)}
    assert len(files.keys()) == 10  # the first of the twelve files holds the bound
    for key in files.keys():
        read = files.get(key)
        assert read is not None and same(read, state(200, seed=keys[key]))
    assert files.damaged == 0
    [leftover] = (tmp_path / "s").glob("*part")
    os.utime(leftover, (0, 0))
    StateFiles(tmp_path / "s")
    assert not leftover.exists()


def test_threads_share_a_pruner_and_a_small_cache(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path, max_memory_bytes=6000, max_disk_bytes=60_000)
    cached, expected = pruner(store), np.array(scores(pruner()))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: scores(cached), range(20)))
    for result in results:
        np.testing.assert_allclose(result, expected, atol=1e-6)
    counts = store.counts
    assert counts.memory_hits + counts.disk_hits + counts.misses == 20 * 9
    assert counts.damaged == counts.unwritten == 0 and counts.memory_bytes <= 6000
