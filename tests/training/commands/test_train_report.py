"""`at2-rag train`: the report beside the weights, dev figures, and the room on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from at2_rag import HeadWeights
from tests.training.commands.test_train_command import (
    MASS,
    PAGE_FILE,
    RECORD_FILE,
    ROOT,
    SEVERAL,
    SHARDS,
    arguments,
    cache,
    lasting,
    place,
    process,
    provenance,
    pruner,
    record,
    train,
    trained,
)
from tests.training.planted_examples import planted_examples, write_examples

__all__ = ["cache", "place", "process", "trained"]


@pytest.fixture(scope="module")
def judged(place: Path) -> Path:
    """What a run with dev files wrote: one usable set, and examples that can't be judged."""
    dev = place / "dev"
    dev.mkdir()
    good = planted_examples(["lakes"], each=6, chunks=6)
    write_examples(dev / "lakes.jsonl", [*good, *planted_examples(["lakes"], each=2, chunks=3)])
    blind = [replace(one, labels=(False,) * 5) for one in planted_examples(["hills"], each=1)]
    write_examples(dev / "hills.jsonl.gz", [*blind, *planted_examples(["hills"], each=3)[1:]])
    options = ("--dev", dev / "lakes.jsonl", "--dev", dev / "hills.jsonl.gz")
    done = train(place, *MASS, "--depth", 3, "--seed", 3, *options, output=place / "judged")
    assert done.exit_code == 0, done.stderr
    assert "dev: nDCG@10 " in done.stderr and "(8 examples)" in done.stderr
    return place / "judged"


def test_the_record_says_what_was_done_but_not_where(place: Path, judged: Path) -> None:
    known = record(judged)
    assert known["command"] == (
        "at2-rag train novels.jsonl seas.jsonl.gz --output judged --model tiny --depth 3 "
        "--features mass:apart --folds 4 --seed 3 --dtype float32 --dev lakes.jsonl "
        "--dev hills.jsonl.gz"
    )
    names = [(file["name"], file["examples"]) for file in known["data"]]
    assert names == [("novels.jsonl", 8), ("seas.jsonl.gz", 8)]
    digest = hashlib.sha256((place / "novels.jsonl").read_bytes()).hexdigest()
    assert known["data"][0]["sha256"] == digest
    assert known["settings"]["model"] == "tiny" and known["settings"]["seed"] == 3
    assert known["samples"] == {"novels": 8, "seas": 8} and known["left_out"] == {}
    run = known["run"]
    stages = ["loading the model", "reading dev", "reading", "cross-validation"]
    assert list(run["seconds"]) == [*stages, "learning curve", "fit"]
    assert 50 < run["peak_memory_mb"] < 100_000
    assert run["machine"]["cores"] == os.cpu_count()
    assert {"python", "torch", "matplotlib"} < set(known["versions"])
    for name in (RECORD_FILE, PAGE_FILE):
        assert place.name not in (judged / name).read_text()


def test_the_record_holds_curve_and_importance(judged: Path) -> None:
    known, weights = record(judged), HeadWeights.load(judged)
    [chosen] = [row for row in known["candidates"] if row["chosen"]]
    *_, last = known["learning_curve"]
    assert last["share"] == 1 and last["samples"] == 12
    assert last["figures"] == {"ndcg_at_10": chosen["ndcg_at_10"]}
    importance = known["head_importance"]
    assert importance["passes"] == ["apart"]
    assert torch.tensor(importance["values"]).shape == weights.weight.shape
    assert sum(map(sum, importance["values"][0])) > 0


def test_dev_examples_are_ranked_with_the_fitted_weights(place: Path, judged: Path) -> None:
    dev = record(judged)["dev"]
    assert dev["examples"] == {"hills": 2, "lakes": 6}
    assert dev["left_out"] == {"fewer than 4 chunks": 2, "without gold": 1}
    assert [(file["name"], file["examples"]) for file in dev["data"]] == [
        ("lakes.jsonl", 8),
        ("hills.jsonl.gz", 3),
    ]
    reader = pruner(place, judged)
    first = [
        example.labels[reader.prune(example.query, example.chunks, top_k=1).kept[0].index]
        for example in planted_examples(["lakes"], each=6, chunks=6)
    ]
    assert dev["gold_first_by_source"]["lakes"] == pytest.approx(sum(first) / 6, abs=1e-4)
    assert provenance(judged)["dev"]["gold_first"] == dev["gold_first"]


def test_the_page_shows_the_figures_of_the_record(judged: Path, trained: Path) -> None:
    known, page = record(judged), (judged / PAGE_FILE).read_text()
    assert page.count("<svg ") == 2 and "No dev files" not in page
    for row in known["candidates"]:
        assert f"{row['ndcg_at_10']:.3f}" in page
    assert f"{known['dev']['gold_first']:.3f}" in page
    assert record(trained)["dev"] is None and "No dev files" in (trained / PAGE_FILE).read_text()


def test_dev_examples_that_were_trained_on_are_on_record(
    place: Path, judged: Path, tmp_path: Path
) -> None:
    asked = {example.query for example in planted_examples()}
    dev = planted_examples(["lakes"], each=6, chunks=6) + planted_examples(["hills"], each=3)[1:]
    again = sum(example.query in asked for example in dev)
    assert record(judged)["dev"]["shared_with_training"] == again > 0
    done = train(place, *MASS, "--dev", place / "novels.jsonl", output=tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "WARNING: 8 of 8 dev examples share a gold passage or their question" in done.stderr
    assert record(tmp_path / "out")["dev"]["shared_with_training"] == 8


def test_dev_files_that_cannot_be_judged_are_seen_before_anything_is_read(
    place: Path, tmp_path: Path
) -> None:
    dev = write_examples(tmp_path / "dev.jsonl", planted_examples(["x"], each=2, chunks=3))
    done = train(place, *MASS, "--dev", dev, output=tmp_path / "out")
    assert done.exit_code == 1
    assert "none of the 2 dev examples can be judged (2 fewer than 4 chunks)" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", 17], "16 groups of examples that share gold passages, cross-validation"),
        (["--features", "mass:joint"], "of reading 'joint', to be fitted for is 'independent'"),
        (["--seed", 1], "seed: 0 there, 1 now"),
        (["--signal", "ablation", "--folds", 17], "16 examples, cross-validation needs 17"),
        (["--signal", "ablation", "--objective", "mixed"], "has no objective 'mixed'"),
        (["--signal", "ablation"], "signal: None there, 'ablation' now"),
        (["--dev"], ""),
    ],
)
def test_what_cannot_be_fitted_is_said_before_anything_is_read(
    place: Path, judged: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    shared = tmp_path / "shared"
    write_settings(shared, judged / "features", seed=0, depth=3)
    dev = place / "dev" / "lakes.jsonl"
    if options[:1] == ["--dev"]:
        write_settings(shared / "dev", judged / "features" / "dev", examples="lakes")
        options, message = [], "examples: 'lakes' there"
    if "--folds" in options or options[:1] == ["--features"]:
        shared = tmp_path / "new"
    given = (*MASS, "--depth", 3, "--dev", dev, "--collected", shared, *options)
    done = train(place, *given, output=tmp_path / "out")
    assert done.exit_code == 1 and message in done.stderr.splitlines()[-1], done.stderr
    assert "reading" not in "".join(done.stderr.splitlines()[:-1])
    assert not list(tmp_path.rglob("shard-*"))


def write_settings(folder: Path, other: Path, **changes: object) -> None:
    """Write the settings of another collection, with changes."""
    folder.mkdir()
    settings = json.loads((other / "collection.json").read_text())
    (folder / "collection.json").write_text(json.dumps({**settings, **changes}))


GONE = """
import os, sys
def remove(event, arguments):  # as the first shard gets its name
    if event == "os.rename" and os.fspath(arguments[1]).endswith("shard-00000.safetensors"):
        for path in sys.argv[2:4]:
            if os.path.exists(path):
                os.unlink(path)
sys.addaudithook(remove)
from at2_rag.cli.group import main
main()
"""


def test_data_is_known_by_what_was_read_even_if_it_is_gone(place: Path, tmp_path: Path) -> None:
    for name in ("novels.jsonl", "seas.jsonl.gz"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    (tmp_path / "tiny").symlink_to(place / "tiny")
    done = subprocess.run(
        [sys.executable, "-c", GONE, *arguments(tmp_path, *MASS, output=tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "novels.jsonl").exists()
    digest = hashlib.sha256((place / "novels.jsonl").read_bytes()).hexdigest()
    assert record(tmp_path / "out")["data"][0]["sha256"] == digest


# --- the output ------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    collected = tmp_path / "collected"
    done = train(place, *MASS, "--collected", collected, output=tmp_path / "file" / "out")
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: ") and "out can't be written (Not a directory); choose" in line
    assert not collected.exists()


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("limit", [300, 3000])
def test_results_that_do_not_fit_end_in_one_line_and_leave_no_parts(
    place: Path, trained: Path, tmp_path: Path, limit: int
) -> None:
    """First not even the weights fit, then everything but the page."""
    options = (*SEVERAL, "--collected", trained / "features")
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)\n"
        "from at2_rag.cli.group import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments(place, *options, output=tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path / "mpl")},
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: ") and "can't be written ([Errno 27] File too large" in line
    assert "what was read is kept in " in line
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert not [name for name in written if name.endswith(".part")]
    assert PAGE_FILE not in written


# --- the disk --------------------------------------------------------------------------------


def test_the_room_it_takes_is_said_first(place: Path, trained: Path, tmp_path: Path) -> None:
    done = train(place, *MASS, output=tmp_path / "out")
    assert "what is read takes about 0.0 MB more in " in done.stderr
    lines = done.stderr.splitlines()
    said = next(place for place, line in enumerate(lines) if "what is read" in line)
    read = next(place for place, line in enumerate(lines) if line.startswith("reading: 16/16"))
    assert said < read


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_disk_that_fills_up_ends_in_one_line_and_a_rerun_goes_on(
    place: Path, trained: Path, tmp_path: Path
) -> None:
    """The second shard is larger than files may be; then the limit is gone."""
    wide = planted_examples(["seas"], each=8, chunks=15)
    write_examples(tmp_path / "novels.jsonl", planted_examples(["novels"]))
    write_examples(tmp_path / "seas.jsonl.gz", wide)
    (tmp_path / "tiny").symlink_to(place / "tiny")
    whole = train(tmp_path, *MASS, output=tmp_path / "whole")
    assert whole.exit_code == 0, whole.stderr
    small, large = ((tmp_path / "whole" / "features" / name).stat().st_size for name in SHARDS)
    assert large > small
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({small},) * 2)\n"
        "from at2_rag.cli.group import main; main()"
    )
    filled = subprocess.run(
        [sys.executable, "-c", code, *arguments(tmp_path, *MASS, output=tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path / "mpl")},
    )
    assert filled.returncode == 1 and "Traceback" not in filled.stderr
    line = filled.stderr.splitlines()[-1]
    assert line.startswith("Error: ") and f"{SHARDS[1]} can't be written" in line
    assert "the 1 shards written before are kept and a rerun goes on from there" in line
    features = tmp_path / "out" / "features"
    assert {path.name for path in features.iterdir()} == {"collection.json", SHARDS[0]}
    again = train(tmp_path, *MASS, output=tmp_path / "out")
    assert again.exit_code == 0, again.stderr
    assert lasting(tmp_path / "out") == lasting(tmp_path / "whole")
