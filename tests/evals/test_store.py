"""Stored results: exact, bound to settings, shared by processes, and there after a kill."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from at2_rag.errors import InputError
from at2_rag_evals.store import Store, settings_key
from tests.evals.labelled_items import CountingRanker


@dataclass(frozen=True)
class Scored:
    scores: tuple[float, ...]
    note: str | None = None


RESULTS = {
    "key0": Scored(()),
    "key1": Scored((0.1 + 0.2, -1e-300, float("inf")), "torn\n\x00é"),
}


def test_results_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "store.sqlite"
    store = Store(path, "system", Scored)
    for key, result in RESULTS.items():
        store[key] = Scored((9.0,))
        store[key] = result
    again = Store(path, "system", Scored)
    assert {key: again[key] for key in RESULTS} == RESULTS
    assert len(again) == len(RESULTS) and "key0" in again and "key2" not in again
    assert again.get("key2") is None
    with pytest.raises(KeyError, match="key2"):
        again["key2"]


def test_results_are_found_under_the_same_settings_only(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    keys = [settings_key(CountingRanker()), settings_key(CountingRanker(version=2))]
    other = CountingRanker()
    other.name = "other"
    keys.append(settings_key(other))
    assert len(set(keys)) == 3
    Store(path, keys[0], Scored)["key0"] = RESULTS["key0"]
    assert [len(Store(path, key, Scored)) for key in keys] == [1, 0, 0]


def test_without_a_path_results_live_for_the_run() -> None:
    store = Store(None, "system", Scored)
    store["key1"] = RESULTS["key1"]
    assert store["key1"] == RESULTS["key1"]
    assert len(Store(None, "system", Scored)) == 0


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("scores: 1.0\n" * 100)
    with pytest.raises(InputError, match=r"store\.sqlite can't be used .*not a database"):
        Store(path, "system", Scored)


def _fill(path: Path, process: int) -> None:
    store = Store(path, "system", Scored)
    for number in range(50):
        store[f"{process} {number}"] = Scored((float(number),))


def test_several_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(Store(path, "system", Scored)) == 150


WRITE_WITHOUT_END = """
import sys
from itertools import count
from pathlib import Path
from tests.evals.test_store import Scored
from at2_rag_evals.store import Store

store = Store(Path(sys.argv[1]), "system", Scored)
for number in count():
    store[str(number)] = Scored((float(number),) * 1000)
    print(number, flush=True)
"""


def test_what_a_killed_process_had_stored_is_there(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    command = [sys.executable, "-c", WRITE_WITHOUT_END, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "100\n":
                time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                break
        last = int((process.stdout.read().split("\n")[:-1] or ["100"])[-1])
    store = Store(path, "system", Scored)
    assert last >= 100
    assert all(store[str(number)].scores == (float(number),) * 1000 for number in range(last + 1))
    store["after"] = RESULTS["key1"]
    assert Store(path, "system", Scored)["after"] == RESULTS["key1"]
