"""`at2-rag train` from files to head weights, with tiny real models."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from at2_rag import AT2Pruner, HeadWeights
from at2_rag.cli.group import main
from at2_rag.cli.train import train_command
from at2_rag.model.cache import CACHE_VARIABLE
from at2_rag.reading.features import PASSES, Reading
from at2_rag.readout.files import DESCRIPTION_FILE, WEIGHTS_FILE
from at2_rag.text.chunks import Chunk
from at2_rag.training.fitting.validation import RIDGES
from tests.tiny_models import tiny_model, tiny_tokenizer, vision_model
from tests.training.features_by_hand import features_by_hand
from tests.training.planted_examples import planted_examples, write_examples

ROOT = Path(__file__).parents[3]
RECORD_FILE, PAGE_FILE = "training.json", "training.html"
SHARDS = ["shard-00000.safetensors", "shard-00001.safetensors"]
MASS = ("--features", "mass:apart")
SEVERAL = ("--features", "log_ratio:together+apart", *MASS, "--depth", 3, "--depth", 1)
QUERY, CHUNKS = "who wrote of the owl?", [Chunk("a bridge"), Chunk("Austen, of a mill " * 3)]


@pytest.fixture(scope="module", autouse=True)
def process() -> Iterator[None]:
    """What the commands change in the process: torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and two data sets, one of them gzipped."""
    place = tmp_path_factory.mktemp("secret place")
    tiny_model().save_pretrained(place / "tiny")
    tiny_tokenizer().save_pretrained(place / "tiny")
    write_examples(place / "novels.jsonl", planted_examples(["novels"]))
    write_examples(place / "seas.jsonl.gz", planted_examples(["seas"]))
    return place


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """What a run over both data sets wrote that tried several designs."""
    done = train(place, *SEVERAL, output=place / "trained")
    assert done.exit_code == 0, done.stderr
    return place / "trained"


def arguments(place: Path, *options: object, output: Path) -> list[str]:
    files = [place / "novels.jsonl", place / "seas.jsonl.gz"]
    fixed = ["--model", place / "tiny", "--dtype", "float32", "--folds", 4, "--output", output]
    return ["train", *map(str, [*files, *fixed, *options])]


def train(place: Path, *options: object, output: Path) -> Result:
    return CliRunner().invoke(main, arguments(place, *options, output=output))


def pruner(place: Path, output: Path, **options: Any) -> AT2Pruner:
    return AT2Pruner.from_pretrained(
        place / "tiny", head_weights=output, dtype="float32", **options
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def provenance(output: Path) -> Any:
    return json.loads((output / DESCRIPTION_FILE).read_text())["provenance"]


def record(output: Path) -> Any:
    return json.loads((output / RECORD_FILE).read_text())


def results(output: Path) -> Any:
    return record(output)["candidates"]


def lasting(folder: Path) -> dict[str, Any]:
    """All that a repeated run writes again: not its times and memory, nor the page with them."""
    found: dict[str, Any] = dict(bytes_of(folder))
    del found[PAGE_FILE], found[RECORD_FILE]
    known = record(folder)
    del known["run"], known["command"], known["settings"]
    return {**found, "record": known}


# --- what is written -------------------------------------------------------------------------


def test_a_pruner_scores_with_the_weights_features_times_weights(
    place: Path, trained: Path
) -> None:
    weights = HeadWeights.load(trained)
    found = [scored.score for scored in pruner(place, trained).score(QUERY, CHUNKS)]
    features = features_by_hand(tiny_model(), QUERY, CHUNKS, weights.spec)
    products = features[:, :, : weights.layers] * weights.weight
    expected = products.sum((1, 2, 3)) + weights.bias
    assert found == pytest.approx(expected.tolist(), abs=1e-3)
    assert found[1] > found[0]


def test_every_design_is_on_record_and_the_best_is_chosen(trained: Path) -> None:
    rows = results(trained)
    assert [(row["quantity"], row["passes"], row["ridge"]) for row in rows[:6]] == [
        (quantity, passes, ridge)
        for quantity, passes in (("log_ratio", ["together", "apart"]), ("mass", ["apart"]))
        for ridge in RIDGES
    ]
    assert [row["depth"] for row in rows] == [3] * 6 + [1]
    best = max(rows[:6], key=lambda row: row["ndcg_at_10"])
    design = ("quantity", "passes", "ridge")
    assert [rows[6][key] for key in design] == [best[key] for key in design]
    for row in rows:
        assert set(row["by_source"]) == {"novels", "seas"}
        mean = sum(row["by_source"].values()) / 2
        assert row["ndcg_at_10"] == pytest.approx(mean, abs=2e-4) and 0 < mean <= 1
    [chosen] = [row for row in rows if row["chosen"]]
    assert chosen["ndcg_at_10"] == max(row["ndcg_at_10"] for row in rows)
    written = HeadWeights.load(trained)
    assert written.layers == chosen["depth"]
    assert (written.spec.quantity, list(written.spec.passes)) == (
        chosen["quantity"],
        chosen["passes"],
    )
    known = provenance(trained)
    assert known["ridge"] == chosen["ridge"]
    assert known["cross_validation"] == {key: chosen[key] for key in ("ndcg_at_10", "by_source")}


def test_the_weights_say_where_they_come_from_but_not_where_that_lies(
    place: Path, trained: Path
) -> None:
    known = provenance(trained)
    assert known["model"] == "tiny"
    assert known["data"] == ["novels.jsonl", "seas.jsonl.gz"]
    assert known["samples"] == {"novels": 8, "seas": 8}
    assert (known["signal"], known["seed"], known["folds"]) == ("evidence", 0, 4)
    assert set(known["versions"]) == {"at2-rag", "torch", "transformers"}
    everything = b"".join(bytes_of(trained).values())
    assert place.name.encode() not in everything
    assert str(place.parent).encode() not in everything


@pytest.mark.parametrize("name", [".", "../tiny", "../tiny/"])
def test_a_folder_is_known_by_its_own_name(
    place: Path, trained: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "tiny")
    options = ("--model", name, "--collected", trained / "features", "--depth", 3)
    assert train(place, *MASS, *options, output=tmp_path).exit_code == 0
    assert provenance(tmp_path)["model"] == "tiny"


def test_people_see_all_designs_and_where_the_weights_are(place: Path, tmp_path: Path) -> None:
    done = train(place, *MASS, "--limit", 4, "--folds", 2, output=tmp_path / "out")
    assert done.stdout == ""
    assert "nDCG@10 out of fold" in done.stderr and "cross-validation" in done.stderr
    assert done.stderr.count("mass:apart") == len(RIDGES)
    assert DESCRIPTION_FILE in done.stderr


@pytest.mark.parametrize("source", ["nq[dev]", "set[/dev]", "[bold]"])
def test_names_that_look_like_markup_are_shown_as_they_are(
    place: Path, tmp_path: Path, source: str
) -> None:
    data = [replace(one, source=source) for one in planted_examples(["novels"])]
    file = write_examples(tmp_path / "data.jsonl", data)
    output = tmp_path / ("a long name of a folder " * 5) / "out[run]"
    fixed = ["--model", place / "tiny", "--dtype", "float32", "--folds", 2, "--output", output]
    done = CliRunner().invoke(main, ["train", *map(str, [file, *fixed, *MASS])])
    assert done.exit_code == 0, done.stderr
    lines = done.stderr.splitlines()
    assert source in next(line for line in lines if "macro" in line)
    assert f"wrote {output / DESCRIPTION_FILE}, the weights and {PAGE_FILE} beside it" in lines


# --- options ---------------------------------------------------------------------------------


def test_features_collected_before_are_used_again(
    place: Path, trained: Path, tmp_path: Path
) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = {path.name: path.stat() for path in (trained / "features").iterdir()}
        return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in found.items()}

    before = state()
    assert set(before) == {"collection.json", *SHARDS}
    options = (*SEVERAL, "--collected", trained / "features")
    assert train(place, *options, output=tmp_path / "again").exit_code == 0
    assert state() == before
    expected = lasting(trained)
    for name in before:
        del expected[f"features/{name}"]
    assert lasting(tmp_path / "again") == expected


@pytest.mark.parametrize("depth", [1, 2])
def test_features_collected_deeper_give_the_weights_of_a_smaller_depth(
    place: Path, trained: Path, tmp_path: Path, depth: int
) -> None:
    options = (*MASS, "--depth", depth)
    shared = (*options, "--collected", trained / "features")  # of three layers
    assert train(place, *shared, output=tmp_path / "shared").exit_code == 0
    assert train(place, *options, output=tmp_path / "own").exit_code == 0
    assert {row["depth"] for row in results(tmp_path / "shared")} == {depth}
    assert results(tmp_path / "shared") == results(tmp_path / "own")
    weights, own = (HeadWeights.load(tmp_path / name) for name in ("shared", "own"))
    assert weights.layers == depth and (weights.weight == own.weight).all()


def test_dev_examples_collected_deeper_by_a_killed_run_serve_too(
    place: Path, tmp_path: Path
) -> None:
    options = (*MASS, "--dev", place / "seas.jsonl.gz", "--collected", tmp_path / "shared")
    assert train(place, *options, "--depth", 3, output=tmp_path / "deep").exit_code == 0
    for path in (tmp_path / "shared").glob("*.*"):  # as if killed before it came to these
        path.unlink()
    done = train(place, *options, "--depth", 1, output=tmp_path / "flat")
    assert done.exit_code == 0 and HeadWeights.load(tmp_path / "flat").layers == 1, done.stderr
    assert '"depth": 3' in (tmp_path / "shared" / "collection.json").read_text()


def test_limit_is_heeded_for_each_source(place: Path, tmp_path: Path) -> None:
    options = (*MASS, "--limit", 3, "--folds", 2)
    assert train(place, *options, output=tmp_path).exit_code == 0
    assert provenance(tmp_path)["samples"] == {"novels": 3, "seas": 3}
    other = train(place, *options, "--seed", 1, output=tmp_path / "other")
    assert other.exit_code == 0 and provenance(tmp_path / "other")["seed"] == 1
    drawn = [folder / "features" / "collection.json" for folder in (tmp_path, tmp_path / "other")]
    assert (
        json.loads(drawn[0].read_text())["examples"] != json.loads(drawn[1].read_text())["examples"]
    )


@pytest.mark.parametrize(("reading", "designs"), [("independent", 9), ("joint", 3)])
def test_without_a_wish_all_features_of_60_percent_of_the_layers_are_tried(
    place: Path, tmp_path: Path, reading: Reading, designs: int
) -> None:
    assert train(place, "--reading", reading, output=tmp_path).exit_code == 0
    rows = results(tmp_path)
    features = {(row["quantity"], *row["passes"]) for row in rows}
    assert len(features) == designs and len(rows) == designs * len(RIDGES)
    assert {row["depth"] for row in rows} == {2}  # of 3 layers
    weights = HeadWeights.load(tmp_path)
    assert (weights.reading, weights.layers) == (reading, 2)
    by_score = pruner(place, tmp_path, reading=reading).prune(QUERY, CHUNKS, top_k=1)
    assert by_score.kept[0].chunk is CHUNKS[1]


def test_the_readings_to_choose_from_are_those_there_are() -> None:
    [option] = [one for one in train_command.params if one.name == "reading"]
    assert set(option.type.choices) == set(PASSES)  # type: ignore[attr-defined]


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depth", 4], "depth is 4; this model has layers 1 to 3"),
        (["--folds", 50], "the data has 16 groups of examples that share gold passages, cross-val"),
        (["--features", "log_ratio"], "--features is 'log_ratio'; write it as log_ratio:together"),
        (["--features", "loud:apart"], "quantity is 'loud'"),
        (["--features", "mass:apart+joint"], "passes are ('apart', 'joint')"),
        (["--features", "log_mass:joint"], "of reading 'joint', to be fitted for is 'independent'"),
        (["--reading", "joint", *MASS], "of reading 'independent', to be fitted for is 'joint'"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(
    place: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    done = train(place, *options, output=tmp_path / "out")
    assert done.exit_code == 1
    [*_, line] = done.stderr.splitlines()
    assert line.startswith("Error: ") and message in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / DESCRIPTION_FILE).exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--depth", 0],
        ["--folds", 1],
        ["--limit", 0],
        ["--seed", -1],
        ["--signal", "x"],
        ["--reading", 1],
    ],
)
def test_unusable_arguments_are_refused(place: Path, tmp_path: Path, options: list[object]) -> None:
    assert train(place, *options, output=tmp_path / "out").exit_code == 2


def test_data_without_gold_is_refused(place: Path, tmp_path: Path) -> None:
    plain = [replace(one, labels=(False,) * 5) for one in planted_examples()]
    write_examples(tmp_path / "novels.jsonl", plain)
    (tmp_path / "seas.jsonl.gz").write_bytes(
        gzip.compress((tmp_path / "novels.jsonl").read_bytes())
    )
    done = train(tmp_path, "--model", place / "tiny", output=tmp_path / "out")
    assert done.exit_code == 1
    assert "Error: none of the 32 examples has both gold and other chunks" in done.stderr


def test_a_model_without_layers_of_its_own_is_refused_in_one_line(tmp_path: Path) -> None:
    vision_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    chunks = [{"text": "Jane Austen wrote Emma.", "is_gold": True}, {"text": "b", "is_gold": False}]
    example = {"id": "1", "question": "Who wrote Emma?", "chunks": chunks}
    (tmp_path / "data.jsonl").write_text(json.dumps(example))
    options = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "output")]
    ran = CliRunner().invoke(main, ["train", str(tmp_path / "data.jsonl"), *options])
    assert ran.exit_code == 1
    assert ran.stderr.splitlines()[-1].startswith("Error: the family 'gemma3' has None layers")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("package", ["scipy", "matplotlib"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    place: Path, tmp_path: Path, package: str
) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None; from at2_rag.cli.group import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments(place, output=tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert package in done.stderr and len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith('run: pip install "at2-rag[train]"\n')
    assert done.stderr.count("pip install") == 1
    assert not (tmp_path / "out").exists()


# --- a killed run ----------------------------------------------------------------------------

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
    place: Path, trained: Path, tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(place, *SEVERAL, output=tmp_path / "out")],
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

    resumed = train(place, *SEVERAL, output=tmp_path / "out")
    assert resumed.exit_code == 0, resumed.stderr
    assert (features / SHARDS[0]).stat().st_mtime_ns == first
    assert lasting(tmp_path / "out") == lasting(trained)
    assert record(tmp_path / "out")["settings"] == record(trained)["settings"]
