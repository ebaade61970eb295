"""`at2-rag train` from files to head weights, with a tiny real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from at2_rag import HeadWeights
from at2_rag.cli.group import main
from at2_rag.readout.files import DESCRIPTION_FILE, WEIGHTS_FILE
from at2_rag.training.commands.record import PAGE_FILE
from tests.training.commands.train_runs import (
    FILES,
    MASS,
    ROOT,
    SEVERAL,
    SHARDS,
    arguments,
    bytes_of,
    chosen,
    last_line,
    lasting,
    provenance,
    record,
    train,
    trained,
)
from tests.training.planted_examples import planted_examples, write_examples


def test_the_weights_say_where_they_come_from_but_not_where_that_lies(
    data: Path, several: Path
) -> None:
    known, best = provenance(several), chosen(several)
    assert HeadWeights.load(several).layers == best["depth"] and known["ridge"] == best["ridge"]
    assert all(best[name] == value for name, value in known["cross_validation"].items())
    assert known["model"] == "tiny" and known["data"] == list(FILES)
    assert known["samples"] == {"novels": 8, "seas": 8}
    assert (known["signal"], known["seed"], known["folds"]) == ("evidence", 0, 4)
    everything = b"".join(bytes_of(several).values())
    assert data.name.encode() not in everything and str(data.parent).encode() not in everything


def test_names_that_look_like_markup_are_shown_as_they_are(data: Path, tmp_path: Path) -> None:
    source = "set[/dev]"
    examples = [replace(one, source=source) for one in planted_examples(["novels"])]
    file = write_examples(tmp_path / "data.jsonl", examples)
    output = tmp_path / ("a long name of a folder " * 5) / "out[run]"
    fixed = ["--model", data / "tiny", "--dtype", "float32", "--folds", 2, "--output", output]
    done = CliRunner().invoke(main, ["train", *map(str, [file, *fixed, *MASS])])
    assert done.exit_code == 0 and done.stdout == "", done.stderr
    lines = done.stderr.splitlines()
    assert source in next(line for line in lines if "macro" in line)
    assert f"wrote {output / DESCRIPTION_FILE}, the weights and {PAGE_FILE} beside it" in lines


@pytest.mark.parametrize("columns", [80, 400])
def test_figures_of_many_sources_are_printed_where_they_fit(
    data: Path, tmp_path: Path, columns: int
) -> None:
    sources = [f"a set of questions {number}" for number in range(8)]
    examples = [
        replace(one, source=source)
        for one, source in zip(planted_examples(["novels"]), sources, strict=True)
    ]
    file = write_examples(tmp_path / "data.jsonl", examples)
    fixed = ["--model", data / "tiny", "--dtype", "float32", "--folds", 2]
    fixed += ["--features", "mass:late"]
    command = ["train", *map(str, [file, *fixed, "--output", tmp_path / "out"])]
    done = CliRunner().invoke(main, command, env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.stderr
    lines = [line.split() for line in done.stderr.splitlines()]
    [heading] = [line for line in lines if "macro" in line]
    shown = sources if columns == 400 else []
    assert heading == "features objective layers ridge macro".split() + " ".join(shown).split()
    rows = [line for line in lines if line[:1] == ["mass:late"]]
    designs = record(tmp_path / "out")["candidates"]
    assert len(rows) == len(designs)
    for row, design in zip(rows, designs, strict=True):
        figures = [design["ndcg_at_10"], *(design["by_source"][name] for name in shown)]
        assert [float(shown) for shown in row[4:]] == pytest.approx(figures, abs=6e-4)


def test_features_collected_deeper_give_the_weights_of_a_smaller_depth(
    data: Path, several: Path, tmp_path: Path
) -> None:
    before = bytes_of(several / "features")
    assert set(before) == {"collection.json", *SHARDS}
    options = (*SEVERAL[:4], "--depth", 2)
    deeper = ("--collected", several / "features")  # of three layers
    shared = trained(data, *options, *deeper, output=tmp_path / "shared")
    assert bytes_of(several / "features") == before
    fresh = trained(data, *options, output=tmp_path / "fresh")
    assert {row["depth"] for row in record(shared)["candidates"]} == {2}
    assert record(shared)["candidates"] == record(fresh)["candidates"]
    weights, expected = HeadWeights.load(shared), HeadWeights.load(fresh)
    assert weights.layers == 2 and (weights.weight == expected.weight).all()


def test_limit_is_heeded_for_each_source_and_drawn_by_the_seed(data: Path, tmp_path: Path) -> None:
    options = (*MASS, "--limit", 3, "--folds", 2)
    first = trained(data, *options, output=tmp_path / "first")
    other = trained(data, *options, "--seed", 1, output=tmp_path / "other")
    assert provenance(first)["samples"] == {"novels": 3, "seas": 3}
    assert provenance(other)["seed"] == 1
    drawn = [
        json.loads((folder / "features" / "collection.json").read_text())["examples"]
        for folder in (first, other)
    ]
    assert drawn[0] != drawn[1]


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "at2_rag.training.commands.train", raising=False)
    monkeypatch.setitem(sys.modules, "at2_rag.training.fitting.trainer", None)
    line = last_line(train(data, output=tmp_path / "out"))
    assert "trainer" in line and line.endswith('run: pip install "at2-rag[train]"')
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depth", 4], "depth is 4; this model has layers 1 to 3"),
        (["--features", "log"], "--features is 'log'; write it as log:together"),
        (["--features", "loud:apart"], "quantity is 'loud'"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(
    data: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    line = last_line(train(data, *options, output=tmp_path / "out"))
    assert line.startswith("Error: ") and message in line
    assert not (tmp_path / "out" / DESCRIPTION_FILE).exists()


KILLED = """
import os, signal, sys
def kill(event, arguments):  # as the second shard is about to get its name
    if event == "os.rename" and os.fspath(arguments[1]).endswith("shard-00001.safetensors"):
        os.kill(os.getpid(), signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
sys.addaudithook(kill)
from at2_rag.cli.group import main
main()
"""


def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(
    data: Path, several: Path, tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(data, *SEVERAL, output=tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if sys.platform != "win32":
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    features = tmp_path / "out" / "features"
    assert [path.name for path in features.glob("*.safetensors")] == SHARDS[:1]
    assert not (tmp_path / "out" / WEIGHTS_FILE).exists()
    first = (features / SHARDS[0]).stat().st_mtime_ns
    for part in features.glob("*-part"):  # is removed by a run an hour later
        part.unlink()
    resumed = trained(data, *SEVERAL, output=tmp_path / "out")
    assert (features / SHARDS[0]).stat().st_mtime_ns == first
    assert lasting(resumed) == lasting(several)
    assert record(resumed)["settings"] == record(several)["settings"]
