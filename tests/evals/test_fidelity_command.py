"""`at2-rag eval fidelity` from files to report, over tiny models."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from at2_rag.errors import DataError, InputError
from at2_rag_evals.cli import eval_group
from at2_rag_evals.fidelity.judging import METRIC_TITLES
from at2_rag_evals.store import STORE_FILE
from tests.evals.labelled_items import make_item, write_items
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

CHEAP = ("--system", "random", "--system", "gold", "--system", "leave_one_out")
SMALL = ("--masks", 4, "--answers", "reference")
DEFAULT_SYSTEMS = (
    *("random", "bm25", "minilm", "all_heads_mean", "at2", "best_head", "heads_8", "heads_16"),
    *("answer_heads_mean", "at2_answer", "gold", "leave_one_out"),
    *("regression_32", "masked_regression"),
)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    novels = [make_item(f"n{place}", "-g----", answers=["Jane Austen"]) for place in range(2)]
    seas = [make_item(f"s{place}", "g--g", source="seas", answers=["sea"]) for place in range(2)]
    folder = tmp_path / "secret place"
    folder.mkdir()
    short = [make_item("short", "g-"), make_item("silent", "g---")]
    return [
        str(write_items(folder / "novels.jsonl", [*novels, *short])),
        str(write_items(folder / "seas.jsonl", seas)),
    ]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(eval_group, ["fidelity", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def stored_keys(output: Path) -> dict[str, list[str]]:
    """Return the keys of stored results by the first word of their namespace."""
    actual: dict[str, list[str]] = {}
    with closing(sqlite3.connect(output / STORE_FILE)) as database:
        for namespace, key in database.execute("SELECT namespace, key FROM results"):
            actual.setdefault(namespace.split()[0], []).append(key)
    return actual


def test_all_systems_from_files_to_report(
    files: list[str], tmp_path: Path, scoring_folder: Path, embedding_folder: Path
) -> None:
    output = tmp_path / "other place" / "results"
    options = (
        *("--model", scoring_folder, "--head-weights", "uniform", "--train", files[1]),
        *("--answer-weights", "uniform", "--embedding-model", embedding_folder),
        *("--output", output, *SMALL),
    )
    report = json.loads(run(*files, *options, "--json").stdout)
    assert report == json.loads((output / "fidelity.json").read_text())
    assert tuple(report["settings"]["systems"]) == DEFAULT_SYSTEMS
    assert report["items"] == {"novels": 2, "seas": 2}
    assert report["left_out"] == {"novels": {"fewer than 4 chunks": 1, "no answer": 1}}
    macro = report["by_source"]["lds_pearson"]["macro"]
    assert macro["at2"] == macro["all_heads_mean"] and macro["at2"]["n"] == 4
    compared = report["differences"]
    assert compared.keys() == {"at2", "at2_answer"}
    assert compared["at2"]["drop_1"]["macro"]["all_heads_mean"]["mean"] == 0.0
    assert compared["at2_answer"]["drop_1"]["macro"]["answer_heads_mean"]["mean"] == 0.0
    assert all(own not in compared[own]["drop_1"]["macro"] for own in compared)
    assert macro["at2_answer"] == macro["answer_heads_mean"] != macro["at2"]
    assert report["by_source"]["insertion_5"].keys() == {"novels", "macro"}
    assert report["seconds"]["gold"]["mean"] == 0.0 < report["seconds"]["regression_32"]["mean"]
    lines = [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["n0", "n1", "s0", "s1"]
    assert lines[0]["systems"]["gold"].keys() == {*METRIC_TITLES, "seconds"}
    assert "at2 minus each other system" in (output / "fidelity.md").read_text()

    before = {path: path.read_bytes() for path in output.iterdir()}
    assert json.loads(run(*files, *options, "--json").stdout) == report
    assert {path: path.read_bytes() for path in output.iterdir()} == before
    everything = b"".join(before.values())
    for folder in (tmp_path, scoring_folder.parent, embedding_folder.parent):
        assert str(folder).encode() not in everything
    assert b"secret place" not in everything and b"other place" not in everything


def test_sentences_and_named_weights(
    files: list[str], tmp_path: Path, scoring_folder: Path, embedding_folder: Path
) -> None:
    weights = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")
    weights.save(tmp_path / "hidden" / "fitted")
    joint = random_weights(tiny_model(), tiny_tokenizer(), "joint")
    replace(joint, target_rule="answer").save(tmp_path / "hidden" / "rule")
    lines = [
        {
            "id": f"t{place}",
            "source": "tales",
            "question": "Who wrote Emma?",
            "answers": ["Jane Austen"],
            "chunks": [
                {"text": f"Jane {place} Austen. The sea. It is.", "is_gold": True, "title": "Emma"},
                *({"text": f"A {place} bridge {own}.", "is_gold": False} for own in range(3)),
            ],
        }
        for place in range(2)
    ]
    lines[0]["chunks"][0]["gold_sents"] = ["Jane 0 Austen."]  # type: ignore[index]
    path = tmp_path / "tales.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "results"
    options = (
        *("--model", scoring_folder, "--head-weights", "uniform", "--train", files[1]),
        *("--answer-weights", tmp_path / "hidden" / "rule", "--embedding-model", embedding_folder),
        *("--output", output, *SMALL),
        *("--weights", f"fitted={tmp_path / 'hidden' / 'fitted'}", "--weights", "flat=uniform"),
        *("--unit", "sentence", "--max-sentences", 6),
    )
    result = run(path, files[0], *options, "--json")
    report = json.loads(result.stdout)
    systems = [name for name in DEFAULT_SYSTEMS if name != "masked_regression"]
    place = systems.index("at2") + 1
    systems = [*systems[:place], "fitted", "flat", *systems[place:]]
    assert list(report["settings"]["systems"]) == systems
    assert report["settings"]["shares"] == {
        name: "softmax" if name == "fitted" else "as they are" for name in systems
    }
    assert "masked_regression left out: masked chunk states have no sentence form" in result.stderr
    assert report["notes"][-1].startswith("masked_regression left out")
    assert "--unit sentence --max-sentences 6 " in report["command"]
    assert "--weights fitted=fitted --weights flat=uniform" in report["command"]
    assert report["items"] == {"tales": 2, "novels": 2}
    for metric in METRIC_TITLES:
        macro = report["by_source"][metric]["macro"]
        assert macro["flat"] == macro["at2"] == macro["all_heads_mean"], metric
        compared = report["differences"]["at2"][metric]["macro"]
        assert set(compared) == set(systems) - {"at2"} and compared["flat"]["mean"] == 0.0
    by_answer = report["by_source"]["lds_pearson"]["macro"]
    assert by_answer["at2_answer"] != by_answer["answer_heads_mean"] != by_answer["at2"]
    shares, plain = (
        report["by_source"][name]["macro"] for name in ("lds_shares_pearson", "lds_pearson")
    )
    assert shares["fitted"] != plain["fitted"] and shares["gold"] == plain["gold"]
    own = [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()]
    assert [(line["sources"], line["gold"], line["chunks"]) for line in own[:2]] == [
        (6, 1, 4),
        (6, 3, 4),
    ]
    assert "sources are sentences" in (output / "fidelity.md").read_text()


def test_units_share_answers_and_no_readings(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    output = tmp_path / "results"
    options = ("--model", scoring_folder, "--masks", 4, "--answer-tokens", 4, "--limit", 1)
    for unit in ("chunk", "sentence"):
        run(*files, *options, "--output", output, "--unit", unit, *CHEAP)
    stored = stored_keys(output)
    assert len(stored["answers"]) == 2
    assert len({key.split()[0] for key in stored["readings"]}) == 4


def test_heads_need_training_files(files: list[str], scoring_folder: Path) -> None:
    options = ("--model", scoring_folder, *SMALL, "--limit", 1, "--json")
    result = run(*files, *options, "--system", "gold", "--system", "heads_8")
    assert "heads_8 left out: choosing heads needs --train FILE" in result.stderr
    report = json.loads(result.stdout)
    assert list(report["seconds"]) == ["gold"]
    assert "heads_8 left out" in report["notes"][-1]
    with pytest.raises(InputError, match="pass --train FILE or another --system"):
        run(*files, *options, "--system", "heads_8")


def test_files_without_a_usable_item_are_refused(tmp_path: Path, scoring_folder: Path) -> None:
    options = ("--model", scoring_folder, *SMALL, *CHEAP)
    path = write_items(tmp_path / "short.jsonl", [make_item("a", "g-")])
    with pytest.raises(DataError, match=r"none of the 1 items .*fewer than 4"):
        run(path, *options)
    path = write_items(tmp_path / "silent.jsonl", [make_item("a", "g---")])
    with pytest.raises(DataError, match=r"none of the 1 items .*no answer"):
        run(path, *options)
