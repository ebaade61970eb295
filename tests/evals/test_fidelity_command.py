"""`at2-rag eval fidelity` from files to report, over tiny models."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from at2_rag.errors import DataError, InputError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.fidelity.judging import METRIC_TITLES
from at2_rag_evals.store import STORE_FILE
from tests.evals.labelled_items import check_repeatable, make_item, run_eval, write_items
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

CHEAP = ("--system", "random", "--system", "gold", "--system", "leave_one_out")
SMALL = ("--masks", 4, "--answers", "reference")
DEFAULT_SYSTEMS = [
    *("random", "bm25", "minilm", "all_heads_mean", "at2", "best_head", "heads_8", "heads_16"),
    *("answer_heads_mean", "at2_answer", "gold", "leave_one_out"),
    *("regression_32", "masked_regression"),
]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    novels = [make_item(f"n{index}", "-g----", answers=["Jane Austen"]) for index in range(2)]
    seas = [make_item(f"s{index}", "g--g", source="seas", answers=["sea"]) for index in range(2)]
    folder = tmp_path / "secret folder"
    folder.mkdir()
    unusable = [make_item("short", "g-"), make_item("silent", "g---")]
    return [
        write_items(folder / "novels.jsonl", [*novels, *unusable]),
        write_items(folder / "seas.jsonl", seas),
    ]


@pytest.fixture
def options(
    files: list[Path], tmp_path: Path, model_folder: Path, embedding_folder: Path
) -> tuple[object, ...]:
    return (
        *("--model", model_folder, "--head-weights", "uniform", "--train", files[1], *SMALL),
        *("--embedding-model", embedding_folder, "--output", tmp_path / "other folder" / "results"),
    )


def report_of(*arguments: object) -> Any:
    return json.loads(run_eval("fidelity", *arguments, "--json").stdout)


def item_records(output: Path) -> list[Any]:
    return [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()]


def test_all_systems_from_files_to_report(
    files: list[Path], tmp_path: Path, options: tuple[object, ...]
) -> None:
    output = tmp_path / "other folder" / "results"
    options = (*options, "--answer-weights", "uniform")
    report = report_of(*files, *options)
    assert report == json.loads((output / "fidelity.json").read_text())
    assert list(report["settings"]["systems"]) == DEFAULT_SYSTEMS
    assert report["items"] == {"novels": 2, "seas": 2}
    assert report["left_out"] == {"novels": {"fewer than 4 chunks": 1, "no answer": 1}}
    macro = report["by_source"]["lds_pearson"]["macro"]
    assert macro["at2"] == macro["all_heads_mean"] and macro["at2"]["n"] == 4
    assert macro["at2_answer"] == macro["answer_heads_mean"] != macro["at2"]
    drops = {name: metrics["drop_1"]["macro"] for name, metrics in report["differences"].items()}
    assert drops["at2"]["all_heads_mean"]["mean"] == 0.0
    assert drops["at2_answer"]["answer_heads_mean"]["mean"] == 0.0
    assert drops["at2"].keys() == {*DEFAULT_SYSTEMS} - {"at2"}
    assert report["by_source"]["insertion_5"].keys() == {"novels", "macro"}
    assert report["seconds"]["gold"]["mean"] == 0.0 < report["seconds"]["regression_32"]["mean"]
    lines = item_records(output)
    assert [line["id"] for line in lines] == ["n0", "n1", "s0", "s1"]
    assert lines[0]["systems"]["gold"].keys() == {*METRIC_TITLES, "seconds"}
    assert "at2 minus each other system" in (output / "fidelity.md").read_text()
    check_repeatable(
        output,
        lambda: report_of(*files, *options),
        hidden=[tmp_path, options[1], "secret folder"],
    )


def test_sentences_and_named_weights(
    files: list[Path], tmp_path: Path, options: tuple[object, ...]
) -> None:
    weights = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")
    weights.save(tmp_path / "hidden" / "fitted")
    joint = random_weights(tiny_model(), tiny_tokenizer(), "joint")
    replace(joint, target_rule="answer").save(tmp_path / "hidden" / "rule")
    tales = [make_item(f"t{index}", source="tales", answers=["Jane Austen"]) for index in range(2)]
    gold = Chunk("Jane Austen. The sea. It is.", "Emma")
    tales = [replace(item, chunks=(gold, *item.chunks[1:])) for item in tales]
    tales[0] = replace(tales[0], gold_sentences=(("Jane Austen.",), (), (), ()))
    path = write_items(tmp_path / "tales.jsonl", tales)
    report = report_of(
        *(path, files[0], *options, "--answer-weights", tmp_path / "hidden" / "rule"),
        *("--weights", f"fitted={tmp_path / 'hidden' / 'fitted'}", "--weights", "flat=uniform"),
        *("--unit", "sentence", "--max-sentences", 6),
    )
    systems = [name for name in DEFAULT_SYSTEMS if name != "masked_regression"]
    systems[5:5] = ["fitted", "flat"]
    assert list(report["settings"]["systems"]) == systems
    assert report["settings"]["shares"] == {
        name: "softmax" if name == "fitted" else "as they are" for name in systems
    }
    assert report["notes"][-1].startswith("masked_regression left out: masked chunk states have no")
    assert "--unit sentence --max-sentences 6 " in report["command"]
    assert report["items"] == {"tales": 2, "novels": 2}
    for metric in METRIC_TITLES:
        macro = report["by_source"][metric]["macro"]
        assert macro["flat"] == macro["at2"] == macro["all_heads_mean"], metric
    by_answer = report["by_source"]["lds_pearson"]["macro"]
    assert by_answer["at2_answer"] != by_answer["answer_heads_mean"] != by_answer["at2"]
    shares, plain = (
        report["by_source"][name]["macro"] for name in ("lds_shares_pearson", "lds_pearson")
    )
    assert shares["fitted"] != plain["fitted"] and shares["gold"] == plain["gold"]
    records = item_records(tmp_path / "other folder" / "results")[:2]
    sizes = [(record["sources"], record["gold"], record["chunks"]) for record in records]
    assert sizes == [(6, 1, 4), (6, 3, 4)]


def test_units_share_answers_and_no_readings(
    files: list[Path], tmp_path: Path, model_folder: Path
) -> None:
    options = ("--model", model_folder, "--masks", 4, "--answer-tokens", 4, "--limit", 1)
    for unit in ("chunk", "sentence"):
        run_eval("fidelity", *files, *options, "--output", tmp_path, "--unit", unit, *CHEAP)
    with closing(sqlite3.connect(tmp_path / STORE_FILE)) as database:
        rows = database.execute("SELECT namespace, key FROM results").fetchall()
    assert sum(namespace.startswith("answers ") for namespace, _ in rows) == 2
    readings = {key.split()[0] for namespace, key in rows if namespace.startswith("readings ")}
    assert len(readings) == 4


def test_heads_need_training_files(files: list[Path], model_folder: Path) -> None:
    options = (*files, "--model", model_folder, *SMALL, "--limit", 1, "--system", "heads_8")
    result = run_eval("fidelity", *options, "--system", "gold", "--json")
    assert "heads_8 left out: choosing heads needs --train FILE" in result.stderr
    report = json.loads(result.stdout)
    assert list(report["seconds"]) == ["gold"]
    assert "heads_8 left out" in report["notes"][-1]
    with pytest.raises(InputError, match="pass --train FILE or another --system"):
        run_eval("fidelity", *options)


@pytest.mark.parametrize(("gold", "reason"), [("g-", "fewer than 4"), ("g---", "no answer")])
def test_files_without_a_usable_item_are_refused(
    gold: str, reason: str, tmp_path: Path, model_folder: Path
) -> None:
    path = write_items(tmp_path / "items.jsonl", [make_item("a", gold)])
    with pytest.raises(DataError, match=rf"none of the 1 items .*{reason}"):
        run_eval("fidelity", path, "--model", model_folder, *SMALL, *CHEAP)
