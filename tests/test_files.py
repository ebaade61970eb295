"""Files that are whole or absent, written by several processes at once, and read up to a limit."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from at2_rag.errors import StorageError
from at2_rag.files import check_writable, data_lines, remove_leftovers, write_whole

ROOT = Path(__file__).parents[1]

KILLED = """
import os, signal, sys
from pathlib import Path
from at2_rag.files import write_whole
def kill(event, arguments):
    if event == "os.rename":
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
write_whole(Path(sys.argv[1]), b"torn")
"""

RACING = """
import sys
from pathlib import Path
from at2_rag.files import write_whole
for number in range(300):
    write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 5000)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_a_private_file_is_for_this_user_alone(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"data", private=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "file", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_processes_may_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    running = [
        subprocess.Popen([sys.executable, "-c", RACING, str(path), letter], cwd=ROOT)
        for letter in "ab"
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert path.read_bytes() in (b"a" * 5000, b"b" * 5000)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_leftovers_of_a_killed_process_are_removed_after_an_hour(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")], cwd=ROOT)
    assert killed.returncode < 0
    [leftover] = tmp_path.iterdir()
    other = tmp_path / "mine.part"
    other.write_bytes(b"")
    long_ago = time.time() - 3700
    os.utime(other, (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {leftover, other}
    os.utime(leftover, (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {other}


def test_a_probe_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/new can't be written \(Not a directory\)"):
        check_writable(tmp_path / "file" / "new")


def test_lines_of_data_are_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("at2_rag.files.MOST_DATA_BYTES", 100)
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for size in (99, 100):
        data = b"a\n" + b"b" * (size - 3) + b"\n"
        plain.write_bytes(data)
        packed.write_bytes(gzip.compress(data))
        for path in (plain, packed):
            assert b"".join(data_lines(path)) == data
            assert list(data_lines(path)) == data.splitlines(keepends=True)
    for data in (bytes(1 << 24), b"\n" * 101, b"a" * 60 + b"\n" + b"b" * 40):
        plain.write_bytes(data)
        packed.write_bytes(gzip.compress(data))
        for path in (plain, packed):
            with pytest.raises(OSError, match="more than 100 bytes, unpacked, .*; split it"):
                list(data_lines(path))
            with pytest.raises(OSError, match="the next line has more than 30 bytes|unpacked"):
                list(data_lines(path, most_line=30))
