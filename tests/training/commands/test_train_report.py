"""`at2-rag train`: the report beside the weights, dev figures, and disks that fill up."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from at2_rag.training.commands.record import PAGE_FILE, RECORD_FILE
from tests.training.commands.train_runs import (
    FILES,
    MASS,
    SEVERAL,
    last_line,
    provenance,
    record,
    train,
    trained,
)
from tests.training.planted_examples import planted_examples, write_examples


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dev files: one usable set, and examples that can't be judged."""
    folder = tmp_path_factory.mktemp("dev")
    good = planted_examples(["lakes"], each=6, chunks=6)
    short = planted_examples(["lakes"], each=2, chunks=3)
    write_examples(folder / "lakes.jsonl", [*good, *short])
    blind = [replace(one, labels=(False,) * 5) for one in planted_examples(["hills"], each=1)]
    usable = planted_examples(["hills"], each=3)[1:]
    write_examples(folder / "hills.jsonl.gz", [*blind, *usable])
    return folder


@pytest.fixture(scope="module")
def judged(data: Path, dev: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with dev files wrote."""
    output = tmp_path_factory.mktemp("judged") / "out"
    files = ("--dev", dev / "lakes.jsonl", "--dev", dev / "hills.jsonl.gz")
    return trained(data, *MASS, "--depth", 3, "--seed", 3, *files, output=output)


def test_the_record_says_what_was_done_but_not_where(data: Path, judged: Path) -> None:
    known = record(judged)
    assert known["command"].startswith(f"at2-rag train {' '.join(FILES)} --output out")
    assert "--seed 3" in known["command"] and "--dev lakes.jsonl" in known["command"]
    digest = hashlib.sha256((data / FILES[0]).read_bytes()).hexdigest()
    assert known["data"][0]["sha256"] == digest
    run = known["run"]
    stages = ["loading the model", "reading dev", "reading", "cross-validation"]
    assert list(run["seconds"]) == [*stages, "fit"]
    assert 50 < run["peak_memory_mb"] < 100_000
    for name in (RECORD_FILE, PAGE_FILE):
        assert data.name not in (judged / name).read_text()


def test_dev_figures_are_on_record_and_page(judged: Path) -> None:
    known = record(judged)["dev"]
    assert known["examples"] == {"hills": 2, "lakes": 6}
    assert known["left_out"] == {"fewer than 4 chunks": 2, "without gold": 1}
    files = [(file["name"], file["examples"]) for file in known["data"]]
    assert files == [("lakes.jsonl", 8), ("hills.jsonl.gz", 3)]
    assert provenance(judged)["dev"]["gold_first"] == known["gold_first"]
    page = (judged / PAGE_FILE).read_text()
    assert page.count("<svg ") == 1 and f"{known['gold_first']:.3f}" in page


def test_readings_with_other_settings_are_refused_before_anything_is_read(
    data: Path, dev: Path, judged: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    write_settings(shared, judged / "features", seed=0, depth=3)
    write_settings(shared / "dev", judged / "features" / "dev", examples="lakes")
    fixed = (*MASS, "--depth", 3, "--collected", shared)
    for options, message in (
        (("--seed", 1), "seed: 0 there, 1 now"),
        (("--dev", dev / "lakes.jsonl"), "examples: 'lakes' there"),
    ):
        assert message in last_line(train(data, *fixed, *options, output=tmp_path / "out"))
    assert not list(tmp_path.rglob("shard-*"))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    options = (*MASS, "--collected", tmp_path / "collected")
    line = last_line(train(data, *options, output=tmp_path / "file" / "out"))
    assert "out can't be written (Not a directory); choose" in line
    assert not (tmp_path / "collected").exists()


def write_settings(folder: Path, other: Path, **changes: object) -> None:
    """Write the settings of another collection, with changes."""
    folder.mkdir()
    settings = json.loads((other / "collection.json").read_text())
    (folder / "collection.json").write_text(json.dumps({**settings, **changes}))


def test_results_that_do_not_fit_end_in_one_line(
    data: Path, several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise OSError(27, "File too large")

    monkeypatch.setattr("at2_rag.training.commands.train.write_whole", fail)
    options = (*SEVERAL, "--collected", several / "features")
    line = last_line(train(data, *options, output=tmp_path / "out"))
    assert line.startswith("Error: ") and "can't be written ([Errno 27] File too large" in line
    assert f"what was read is kept in {several / 'features'}" in line
