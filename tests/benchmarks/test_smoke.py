"""Each script runs whole, on a tiny model, and leaves its report."""

from __future__ import annotations

import gc
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import conversations
import depth
import keeping_rules
import late_designs
import learning_curve
import left_out
import memory
import pytest
import serving
import soak
import speed
import title_lists
import training_designs
from click.testing import CliRunner

from at2_rag.cli.group import main
from at2_rag.model.loading import LoadedModel
from at2_rag.reading import late
from at2_rag_evals.rankers.embedding import default_is_installed
from tests.server.processes import served, tiny_arguments
from tests.tiny_weights import calibrated_weights, random_weights
from tests.training.calibrating.equal_examples import equal_examples
from tests.training.planted_examples import write_examples


def _run(command: click.Command, options: list[str], folder: Path) -> dict[str, Any]:
    gc.freeze()  # collecting what was there before takes most of the time
    result = CliRunner().invoke(command, [*options, "--output", str(folder / "out")])
    gc.unfreeze()
    assert result.exit_code == 0, result.output
    report = folder / "out" / f"{command.name}.json"
    record = json.loads(report.read_text(encoding="utf-8"))
    text = report.with_suffix(".md").read_text(encoding="utf-8") + json.dumps(record)
    assert str(Path(options[1]).parent) not in text  # files are named, but not where they are
    for option in ("--model tiny", "--output out", "--prompt-tokens 100 2000"):
        assert f" {option}" in record["command"]
    return dict(record["tables"])


def test_speed(tiny_options: list[str], tmp_path: Path) -> None:
    options = ["--items", "2", "--repeats", "1", "--ablations", "--calls", "8", "--generate", "2"]
    options += ["--scaling", "2", "--scaling", "12", "--callers", "1", "--callers", "2"]
    options += ["--without-limit", "2"]
    tables = _run(speed.main, [*tiny_options, *options], tmp_path)
    unit, *calls = tables["Whole calls, by one full forward pass"]
    assert unit["ratio"] == {"median": 1, "low": 1, "high": 1, "n": 2}
    presets = [f"{p}, {s}" for p in ("best", "balanced", "fast") for s in ("cold", "warm")]
    assert {*presets, "joint", "best, from disk", "32 removals"} <= {row["case"] for row in calls}
    assert len(tables["Cold calls, by the matrix products they need"]) == 3
    assert len(tables["Other ways, by our time"]) == 2 * len(tables["A call by its chunks"])
    one, two = tables["Callers of one pruner, best, warm"]
    assert one["throughput"] == 1 and one["wrong scores"] == two["wrong scores"] == 0
    assert [row["state"] for row in tables["Calls without a limit, best"]] == ["cold", "warm"]
    full, cold, *_ = tables["Answers of 2 tokens"]
    assert full["kept"] == 10 and 1 <= cold["kept"] <= 10


def test_memory(tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "measure", memory.measure_here)  # no fresh process a case
    options = ["--chunks", "10", "--chunks", "150", "--ablations"]
    tables = _run(memory.main, [*tiny_options, *options], tmp_path)
    few, many = tables["Peak of a call above the loaded model, MB"]
    assert (few["chunks"], many["chunks"]) == (10, 150)
    assert "joint" in few and "joint" not in many  # past the model's window
    for row in (few, many):
        keys_and_values = 2 + 1  # of two layers; chunks don't need the last layer's values
        assert row["states"] == row["tokens"] * keys_and_values * 2 * 8 * 4 / 1e6
    assert len(tables["Peak of other ways over 10 chunks, MB"]) == 2


def test_soak(tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "seconds_to_end", lambda options, requests: 3.0)
    tables = _run(soak.main, [*tiny_options, "--calls", "30", "--awaited", "20"], tmp_path)
    rows = tables["Varied calls"]
    assert [row["calls"] for row in rows] == [30, 30, 20]
    assert all(row["threads left"] == 0 and row["growth, MB"] < 50 for row in rows)
    monkeypatch.setattr(soak, "seconds_to_end", lambda options, requests: 3.0 * len(requests))
    options = [*tiny_options, "--calls", "2", "--awaited", "2"]
    result = CliRunner().invoke(soak.main, options)
    assert result.exit_code == 1 and "the process took 6.0 s longer to end" in result.output


def test_late_designs(
    tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_designs, "EARLY", (1, 2, 9))  # of which the model has two
    train = str(Path(tiny_options[1]).parent / "train.jsonl")
    options = [train, "--model", tiny_options[1], "--collected", str(tmp_path), "--depth", "3"]
    options += ["--key-heads", "2", "--key-heads", "6", "--offset", "8", "--limit", "6"]
    result = CliRunner().invoke(late_designs.main, options)
    assert result.exit_code == 0, result.output
    assert "### Late, the question 8 positions on" in result.output
    assert result.output.count("within") == len(late_designs.RULES)
    early = result.output.split("### Chunks let go early")[1].split("###")[0].splitlines()
    rows = [line.split("|")[1:4] for line in early if line.startswith(("| 1 ", "| 2 "))]
    assert len(rows) == 2 * len(late_designs.SHARES)
    assert all(0 < float(work) <= 1 for _, _, work in rows)
    assert late.OFFSET == 160


def test_left_out(tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_out, "HELD_OUT", 8)
    monkeypatch.setattr(training_designs, "HELD_OUT", 8)
    files = []
    for source in ("novels", "seas"):
        examples = equal_examples(source, 12)
        distinct = [
            replace(
                one,
                query=f"{one.query} {source} {one.id}",
                chunks=tuple(replace(chunk, title=f"page {one.id}") for chunk in one.chunks),
            )
            for one in examples
        ]
        files.append(str(write_examples(tmp_path / f"{source}.jsonl", distinct)))
    model, presets = ["--model", tiny_options[1]], tmp_path / "presets"
    train = ["train", *files, *model, "--hold-out", "8", "--limit", "100", "--folds", "2"]
    train += ["--features", "log:late", "--depth", "2", "--key-heads", "2", "--dtype", "bfloat16"]
    train += ["--collected", f"{presets}/read/fitted", "--output", f"{presets}/fitted/fast"]
    trained = CliRunner().invoke(main, train)
    assert trained.exit_code == 0, trained.output
    of_presets = ["--presets", str(presets), "--preset", "fast"]
    of_weights = ["--head-weights", f"{presets}/fitted/fast", "--collected", f"{tmp_path}/read"]
    of_weights += ["--hold-out", "8"]
    for options in (of_presets, of_weights):
        arguments = [*files, *model, "--dtype", "bfloat16", *options]
        result = CliRunner().invoke(left_out.main, arguments)
        assert result.exit_code == 0, result.output
        rules = result.output.split("### Kept by several rules")[1].split("###")[0]
        assert rules.count("\n|") == 3 + len(keeping_rules.RULES)
        for heading in ("left-out sources", "| macro", "| lists of all kinds", "| echo alone"):
            assert heading in result.output
    monkeypatch.setattr(title_lists, "FEWEST_TITLES", 2)
    of_titles = [*of_weights, "--teacher", "--titles", f"{tmp_path}/titles"]
    with_teacher = [(of_titles, 9)] if default_is_installed() else []
    for options, count in ((of_presets, 18), (of_weights, 15), *with_teacher):
        arguments = [*files, *model, "--dtype", "bfloat16", *options]
        designs = CliRunner().invoke(training_designs.main, arguments)
        assert designs.exit_code == 0, designs.output
        assert designs.output.count("\n|") == 2 + count
    refused = CliRunner().invoke(left_out.main, [*files, *model])
    assert refused.exit_code == 2 and "pass --presets, or --head-weights" in refused.output


def test_learning_curve(
    tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_curve, "COUNTS", (0, 4, 8))
    monkeypatch.setattr(learning_curve, "JUDGED", 4)
    monkeypatch.setattr(learning_curve, "FEW", 4)
    files = {
        source: str(write_examples(tmp_path / f"{source}.jsonl", equal_examples(source, count)))
        for source, count in {"novels": 10, "seas": 10, "towns": 10}.items()
    }
    loaded = LoadedModel.from_pretrained(tiny_options[1])
    random_weights(loaded.model, loaded.tokenizer, "late").save(tmp_path / "weights")
    options = [files["novels"], files["seas"], "--judge", files["towns"], *tiny_options[:2]]
    options += ["--head-weights", str(tmp_path / "weights"), "--collected", str(tmp_path / "read")]
    result = CliRunner().invoke(learning_curve.main, options)
    assert result.exit_code == 0, result.output
    of_source, mean = result.output.split("### Mean of the sources")
    rows = [line for line in mean.splitlines() if line.startswith("|")][2:]
    assert [row.split("|")[1].strip() for row in rows] == ["0", "4"]  # 8 would leave 2 to judge
    assert "### towns" in of_source and all(row in of_source for row in rows)
    del options[2:4]
    result = CliRunner().invoke(learning_curve.main, options)
    assert result.exit_code == 0, result.output
    assert "### novels" in result.output and "### seas" in result.output


def test_conversations(tiny_options: list[str], tmp_path: Path) -> None:
    texts = ["The budget was low.", "The colour was red.", "It rained."]
    questions = ["What did they think about the budget?", "What was said of the colour?", "Why?"]
    lines = [
        json.dumps(
            {
                "id": str(number),
                "source": "meetings",
                "question": question,
                "chunks": [{"text": text, "is_gold": n == number} for n, text in enumerate(texts)],
            }
        )
        for number, question in enumerate(questions)
    ]
    (tmp_path / "meetings.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = [str(tmp_path / "meetings.jsonl"), *tiny_options[:2], "--head-weights", "uniform"]
    result = CliRunner().invoke(conversations.main, options)
    assert result.exit_code == 0, result.output
    rows = [line.split("|")[1:-1] for line in result.output.splitlines() if line.startswith("| ")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert cells["whole question"][0] == "2", "one has no topic"
    whole, another = cells["whole question"], cells["whole, after another"]
    assert another[1] == another[2] == whole[1], "nothing is referred to"
    assert cells["'it' for its topic"][2] == cells["'it' for its topic"][3], "the same is read"


def test_depth(tiny_options: list[str], tmp_path: Path) -> None:
    train = str(Path(tiny_options[1]).parent / "train.jsonl")
    options = ["--train", train, "--dev", tiny_options[3], "--collected", str(tmp_path / "read")]
    options += ["--depth", "1", "--depth", "3", "--masks", "4", "--answer-tokens", "2"]
    tables = _run(depth.main, [*tiny_options, *options, "--folds", "4"], tmp_path)
    rows = tables["Quality (macro nDCG@10, 95 % intervals) and time (ratio to the unit)"]
    names = ["1, together", "1, together + apart", "3, together", "3, together + apart"]
    assert [row["layers, passes"] for row in rows] == names
    assert any(row["less the best"].startswith("0.0000 [0.0000, 0.0000]") for row in rows)
    tokens = rows[0]["KB a chunk"] / (1 * 2 * 8 * 4)
    assert rows[2]["KB a chunk"] == pytest.approx(tokens * (3 + 2) * 2 * 8 * 4)
    assert set(tables["nDCG@10 by source, out of fold"][0]) == {"layers, passes", "novels", "seas"}
    assert (tmp_path / "out" / "depth-1.svg").read_text(encoding="utf-8").startswith("<svg ")


def test_serving(tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "ROUNDS", 2)
    loaded = LoadedModel.from_pretrained(tiny_options[1], dtype="float32")
    weights = calibrated_weights(loaded.model, loaded.tokenizer, cosine_weight=0.5)
    weights.save(tmp_path / "weights")
    options = ["--calls", "10", "--minutes", "0.01", "--also", "--batch-delay 0.01"]
    options += ["--head-weights", str(tmp_path / "weights")]
    tables = _run(serving.main, [*tiny_options, *options], tmp_path)
    rows = tables["Requests of 10 chunks"]
    assert {(row["server"], row["cache"], row["callers"]) for row in rows} == {
        (server, cache, callers)
        for server in (*serving.SERVERS, "--batch-delay 0.01")
        for cache in ("cold", "warm")
        for callers in (1, 8)
    }
    assert {row["statuses"] for row in rows} == {"200: 10"}
    for part in tables["Overload"]:
        assert set(re.findall(r"(\d+):", part["statuses"])) <= {"200", "429"}
        assert part["memory, MB"] > 0
    for row in tables["Mass disconnect"]:
        assert 0 <= row["callers that left"] <= serving.OVERLOAD * serving.CALLERS
        assert 0 <= row["batches begun afterwards"] <= row["callers that left"]
        assert row["processor ms afterwards"] >= 0
        assert row["next request, ms"] > 0 and row["of an idle server, ms"] > 0
    with served(*tiny_arguments(Path(tiny_options[1]), tmp_path / "weights")) as server:
        options = ["--calls", "3", "--url", server.url]
        tables = _run(serving.main, [*tiny_options, *options], tmp_path)
    assert list(tables) == ["Requests of 10 chunks"]
    assert [row["statuses"] for row in tables["Requests of 10 chunks"]] == ["200: 3"] * 4
