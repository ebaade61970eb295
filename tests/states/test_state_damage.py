"""The store of chunk states under damage, kills, full disks and races: real files and processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from at2_rag import AT2Pruner, ChunkCache
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.chunk_states import encode_prefix
from at2_rag.reading.state_groups import ready_states
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


def scores(own: AT2Pruner) -> list[float]:
    return [chunk.score for chunk in own.score(QUERY, CHUNKS)]


# --- files that are not as they were written ---------------------------------------------------


def test_no_single_damaged_byte_goes_unnoticed(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.put(key_of("a"), state(3))
    [path] = paths(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert files.get(key_of("a")) is None
        assert not path.exists(), "dropped"
    assert files.damaged == len(whole)
    path.write_bytes(whole)
    found = files.get(key_of("a"))
    assert found is not None and same(found, state(3))


def test_no_truncated_or_longer_file_goes_unnoticed(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.put(key_of("a"), state(3))
    [path] = paths(tmp_path)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert files.get(key_of("a")) is None
    path.write_bytes(whole + b"\0")
    assert files.get(key_of("a")) is None


def test_a_state_under_another_key_is_not_taken_for_it(tmp_path: Path) -> None:
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


def test_a_folder_in_the_place_of_a_file_is_a_miss(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path)
    (tmp_path / f"{key_of('a')}.state").mkdir()
    assert store.get(key_of("a")) is None
    store[key_of("a")] = state(1)
    assert store.counts.unwritten == 1


def test_a_whole_state_of_other_shapes_is_read_anew() -> None:
    model = CountingModel(tiny_model())
    layout, prefix = layout_of(model, LENGTHS), encode_prefix(model)
    store = ChunkCache()
    ready_states(model, prefix, layout, store=store)
    for key, kept in list(store.items()):
        store[key] = type(kept)(kept.keys[:, :, 1:], kept.values)
    model.passes.clear()
    ready_states(model, prefix, layout, store=store)
    assert model.passes == [sum(LENGTHS)]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 8
    path.write_bytes(data)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [_flip, _cut, _empty, _lose])
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


def test_the_folder_vanishes_under_a_running_store(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path / "s", max_memory_bytes=0)
    own = pruner(store)
    expected = scores(own)
    shutil.rmtree(tmp_path / "s")
    assert scores(own) == pytest.approx(expected, abs=1e-6)
    assert store.disk_size.states == 9
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def test_the_folder_becomes_something_else_under_a_running_store(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path / "s", max_memory_bytes=0)
    own = pruner(store)
    expected = scores(own)
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s").write_text("a file now")
    assert scores(own) == pytest.approx(expected, abs=1e-6)
    assert store.counts.unwritten == 9 and store.disk_size.states == 0


READ_ONLY = """
import os, sys
from at2_rag import ChunkCache
from tests.states.test_store import key_of, same, state
os.setuid(65534)
store = ChunkCache(sys.argv[1])
assert same(store[key_of("a")], state(3))
store[key_of("b")] = state(1)
print(store.counts.disk_hits, store.counts.unwritten, len(store))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
def test_a_folder_that_can_only_be_read_serves_what_it_has() -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "s"
        ChunkCache(kept)[key_of("a")] = state(3)
        for path in (Path(folder), kept):
            path.chmod(0o755)
        paths(kept)[0].chmod(0o644)
        run = _run(READ_ONLY, str(kept))
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == ["1", "1", "2"]


# --- disks without room -------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys
from at2_rag import ChunkCache
from tests.states.test_state_damage import pruner, scores
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
store = ChunkCache(sys.argv[1])
print(*scores(pruner(store)))
print(store.counts.unwritten, store.disk_size.states)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_what_cannot_be_written_is_counted_and_leaves_nothing(tmp_path: Path) -> None:
    """As on a full disk, writing fails midway in the file."""
    run = _run(LIMITED, str(tmp_path / "s"))
    assert run.returncode == 0, run.stderr
    found, told = run.stdout.splitlines()
    assert [float(own) for own in found.split()] == pytest.approx(scores(pruner()), abs=1e-6)
    assert told == "9 0"
    assert run.stderr.count("can't be kept") <= 1
    assert list((tmp_path / "s").iterdir()) == []


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
import random, sys
from at2_rag.states.files import StateFiles
from tests.states.test_store import key_of, state
files = StateFiles(sys.argv[1], max_bytes=int(sys.argv[2]))
order = list(range(40)) * 5
random.Random(int(sys.argv[3])).shuffle(order)
print("ready", flush=True)
for number in order:
    found = files.get(key_of(number))
    if found is None:
        files.put(key_of(number), state(200, seed=number))
    else:
        expected = state(200, seed=number)
        assert found.keys.equal(expected.keys) and found.values.equal(expected.values), number
print(files.damaged, files.unwritten)
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def _start(folder: Path, max_bytes: int, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FILLING, str(folder), str(max_bytes), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("max_bytes", [10**9, 400_000], ids=["room for all", "always full"])
def test_processes_that_fill_and_empty_one_folder_at_once(tmp_path: Path, max_bytes: int) -> None:
    children = [_start(tmp_path / "s", max_bytes, seed) for seed in range(2)]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert out.split() == ["ready", "0", "0"]
    assert StateFiles(tmp_path / "s").size().nbytes <= max_bytes * 9 // 8
    assert list((tmp_path / "s").glob("*.part")) == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_at_any_moment(tmp_path: Path) -> None:
    generator = random.Random(3)
    for seed in range(6):
        child = _start(tmp_path / "s", 10**9, seed)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0, 0.06))
        child.kill()
        child.communicate()
        assert child.returncode in (-signal.SIGKILL, 0)
        files = StateFiles(tmp_path / "s")
        for key in files.keys():
            number = next(own for own in range(40) if key_of(own) == key)
            found = files.get(key)
            assert found is not None and same(found, state(200, seed=number))
        assert files.damaged == 0
    left = [path for path in (tmp_path / "s").iterdir() if path.suffix not in (".state", ".json")]
    assert left == []


@pytest.mark.parametrize("there", [True, False])
def test_stores_that_are_opened_at_once(tmp_path: Path, there: bool) -> None:
    barrier = threading.Barrier(4)

    def open_and_use(folder: Path, number: int) -> bool:
        barrier.wait()
        files = StateFiles(folder, max_bytes=10**6)
        files.put(key_of(number), state(1))
        return files.get(key_of(number)) is not None

    with ThreadPoolExecutor(4) as pool:
        for attempt in range(60):
            folder = tmp_path / str(attempt) / "s"
            if there:
                StateFiles(folder)
            assert all(pool.map(open_and_use, [folder] * 4, range(4)))


def test_threads_that_share_a_pruner_and_a_small_store(tmp_path: Path) -> None:
    store = ChunkCache(tmp_path, max_memory_bytes=6000, max_disk_bytes=60_000)
    own, expected = pruner(store), np.array(scores(pruner()))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: scores(own), range(40)))
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-6)
    counts = store.counts
    assert counts.memory_hits + counts.disk_hits + counts.misses == 40 * 9
    assert counts.damaged == counts.unwritten == 0 and counts.memory_bytes <= 6000
