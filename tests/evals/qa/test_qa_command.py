"""`at2-rag eval qa` from files to report, with real pruners, tiny models and a real server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from at2_rag.errors import InputError
from at2_rag_evals.cli import eval_group
from at2_rag_evals.qa.cli import DEFAULT_PRUNERS, MORE_PRUNERS
from at2_rag_evals.qa.generators.base import GenerationError
from at2_rag_evals.qa.pruners.registry import PrunerOptions, known_pruners
from tests.evals.labelled_items import make_item, write_items
from tests.evals.qa.served import Served, served
from tests.report.test_training_page import Reader


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(eval_group, ["qa", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "secret place"
    folder.mkdir()
    novels = [make_item(f"n{place}", "-g---", answers=[f"n{place}"]) for place in range(6)]
    seas = [make_item(f"s{place}", "g--g-", source="seas", answers=["no"]) for place in range(3)]
    odd = [make_item("unanswered", "g-"), make_item("one", "g", answers=["one"])]
    return [
        str(write_items(folder / "novels.jsonl", [*novels, *odd])),
        str(write_items(folder / "seas.jsonl", seas)),
    ]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def test_all_pruners_from_files_to_report(
    files: list[str], tmp_path: Path, scoring_folder: Path, embedding_folder: Path
) -> None:
    output = tmp_path / "other place" / "results"
    options = (
        *("--generator", scoring_folder, "--model", scoring_folder, "--head-weights", "uniform"),
        *("--embedding-model", embedding_folder, "--answer-tokens", 4, "--output", output),
        *("--top-k", 2, "--max-tokens", 60, "--json"),
    )
    report = json.loads(run(*files, *options).stdout)
    assert report == json.loads((output / "summary.json").read_text())
    assert report["command"] == (
        "at2-rag eval qa novels.jsonl seas.jsonl "
        + " ".join(f"--pruner {name}" for name in DEFAULT_PRUNERS)
        + " --top-k 2 --max-tokens 60 --generator tiny --seed 0 --order score --answer-tokens 4 "
        "--model tiny --head-weights uniform --embedding-model model --output results"
    )
    assert report["items"]["judged"] == 10
    assert report["notes"][-1].startswith(
        "The generator tiny has the weights of the model that scores for all_heads_mean, at2: "
    )
    assert report["items"]["left_out"] == {"novels": {"no answers": 1}}
    assert report["items"]["remarks"] == {"novels": {"one chunk": 1}}
    [generator] = report["generators"]
    budgeted = [name for name in DEFAULT_PRUNERS if name not in ("none", "closed_book", "oracle")]
    cells = ["none", "closed_book", "oracle"]
    cells += [f"{name}, {budget}" for name in budgeted for budget in ("top 2", "60 tokens")]
    assert [cell["label"] for cell in generator["cells"]] == cells
    assert generator["totals"]["closed_book"]["context_tokens"] == 0
    for cell in cells:
        if cell.endswith("60 tokens"):
            assert generator["totals"][cell]["context_tokens"] <= 60
    assert generator["by_source"]["gold_recall"]["macro"]["oracle"]["mean"] == 1
    # What at2 and all_heads_mean keep with the same weights, and so their answers, are the same.
    accuracy = generator["by_source"]["accuracy"]["macro"]
    assert accuracy["at2, top 2"] == accuracy["all_heads_mean, top 2"]
    records = lines(output)
    assert len(records) == 10 * len(cells)
    kept = {(own["pruner"], own["budget"], own["id"]): own["kept"] for own in records}
    assert kept["first_k", "top 2", "n0"] == [0, 1]
    assert kept["last_k", "top 2", "n0"] == [3, 4]
    assert kept["at2", "top 2", "one"] == kept["oracle", None, "one"] == [0]
    page = Reader((output / "report.html").read_text())
    assert page.loads == [] and page.counts["svg"] == 3  # macro and two sources
    shown = [row for row in page.rows if row and row[0] == "first_k, top 2"]
    assert "1, 2" in {row[-1] for row in shown}
    assert {row[0] for row in page.rows} >= {*cells, "novels", "seas"}
    chunks = [row for row in page.rows if len(row) == 3 and row[1] == "novels n0 passage 3"]
    assert "last_k, top 2" in chunks[0][2] and "oracle" not in chunks[0][2]

    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    second = json.loads(run(*files, *options).stdout)
    after = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for name in ("answers", "scores"):
        inside = {path: own for path, own in before.items() if path.parent.name == name}
        assert inside and inside == {path: after[path] for path in inside}
    assert second["generators"][0]["by_source"] == report["generators"][0]["by_source"]
    everything = b"".join(after.values()).decode()
    for folder in (tmp_path, scoring_folder.parent, embedding_folder.parent):
        assert str(folder) not in everything
    assert "secret place" not in everything and "other place" not in everything


def test_tables_are_for_people_and_show_what_was_left_out(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    options = ("--generator", scoring_folder, "--answer-tokens", 2, "--output", tmp_path / "out")
    result = run(*files, *options, "--pruner", "none", "--pruner", "bm25", "--limit", 2)
    assert "Summary, tiny" in result.stdout and "bm25, top 3" in result.stdout
    markdown = (tmp_path / "out" / "qa.md").read_text()
    assert "| novels | 2 | 5 beyond the first 2, 1 no answers |" in markdown
    assert "### Accuracy: none minus each other cell" in markdown
    assert "answers from bm25, top 1: 4/4" in result.stderr
    assert "all cells: 3/3" in result.stderr


def command(files: list[str], output: Path, server: Served, *more: str) -> list[str]:
    arguments = [*files, "--output", str(output), "--generator", "openai:gpt-4o"]
    arguments += ["--endpoint", server.url, "--token-counter", "cl100k_base", "--parallel", "1"]
    for name in ("none", "first_k", "bm25"):
        arguments += ["--pruner", name]
    return [*arguments, *more]


@pytest.fixture
def vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vocabularies that llama-index-core ships, so that nothing is fetched."""
    core = pytest.importorskip("llama_index.core")
    folder = Path(core.__file__).parent / "_static" / "tiktoken_cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **{key: value for key, value in record.items() if key != "prune_seconds"},
            "answer": {key: own for key, own in record["answer"].items() if key != "seconds"},
        }
        for record in records
    ]


@pytest.mark.usefixtures("vocabulary")
def test_a_killed_run_loses_nothing_and_counts_nothing_twice(
    files: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    with served(tmp_path / "log", seconds=0.15) as server:
        arguments = command(files, output, server)
        for least in (3, 14):
            process = subprocess.Popen(
                [sys.executable, "-m", "at2_rag", "eval", "qa", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            limit = time.monotonic() + 120
            while len(server.requests()) < least:
                assert process.poll() is None and time.monotonic() < limit
                time.sleep(0.02)
            with pytest.raises(InputError, match="another run is writing to"):
                run(*arguments)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            assert not (output / "summary.json").exists()
        run(*arguments)
        asked = Counter(own["messages"][0]["content"] for own in server.requests())
        # A prompt in flight when the run was killed is the only one asked for again.
        assert sum(asked.values()) - len(asked) <= 2 and max(asked.values()) <= 3
        stored = [
            json.loads(line)["prompt"]
            for path in (output / "answers").iterdir()
            for line in path.read_text().splitlines()
        ]
        assert len(stored) == len(set(stored)) == len(asked)
        before = len(server.requests())
        run(*arguments)
        assert len(server.requests()) == before  # a finished run costs nothing
        run(*command(files, tmp_path / "whole", server))
    assert timeless(lines(output)) == timeless(lines(tmp_path / "whole"))
    cells = Counter((own["pruner"], own["budget"], own["id"]) for own in lines(output))
    assert set(cells.values()) == {1} and len(cells) == 10 * 5


@pytest.mark.usefixtures("vocabulary")
def test_what_an_endpoint_refused_is_counted_and_left_out(files: list[str], tmp_path: Path) -> None:
    with served(tmp_path / "log", {"n1?": ["400", "400"]}) as server:
        options = ("--prices", "2", "10", "--json")
        report = json.loads(run(*command(files, tmp_path / "out", server, *options)).stdout)
    [generator] = report["generators"]
    assert generator["unanswered"] == {"no answer from none": 1}
    assert generator["by_source"]["accuracy"]["novels"]["none"]["n"] == 6
    errors = [own for own in lines(tmp_path / "out") if own["error"]]
    assert errors and {own["id"] for own in errors} == {"n1"}
    assert generator["totals"]["none"]["cost"] == pytest.approx(9 * (11 * 2 + 7 * 10) / 1e6)


@pytest.mark.usefixtures("vocabulary")
def test_a_dead_endpoint_ends_the_run_with_one_line(files: list[str], tmp_path: Path) -> None:
    dead = Served("http://127.0.0.1:9/v1", tmp_path / "log")
    with pytest.raises(GenerationError, match="3 prompts in a row failed 1 times"):
        run(*command(files, tmp_path / "out", dead, "--attempts", "1"))


def test_a_folder_of_another_version_is_refused(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    output = tmp_path / "out"
    options = ("--generator", scoring_folder, "--answer-tokens", 1, "--output", output)
    cheap = ("--pruner", "none", "--limit", 1)
    run(*files, *options, *cheap)
    marker = output / "format.json"
    marker.write_text(json.dumps({"eval": "qa", "format": 99}))
    with pytest.raises(InputError, match=r"'qa' in format 99, .* format 1; choose another"):
        run(*files, *options, *cheap)
    marker.unlink()
    summary = json.loads((output / "summary.json").read_text())
    (output / "summary.json").write_text(json.dumps({**summary, "format": 0}))
    with pytest.raises(InputError, match="in format 0, this version"):
        run(*files, *options, *cheap)


def test_options_come_from_a_file_and_the_command_line_wins(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    config = tmp_path / "qa.toml"
    values = {
        "files": files,
        "generator": str(scoring_folder),
        "pruner": ["none", "last_k"],
        "top-k": 2,
        "answer_tokens": 1,
        "limit": 1,
        "prices": [3, 15.5],
        "weights": "mine=uniform",
        "model": str(scoring_folder),
        "order": ["score", "original"],
        "output": str(tmp_path / "out"),
    }
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    report = json.loads(run("--config", config, "--limit", 2, "--json").stdout)
    [generator] = report["generators"]
    cells = ["none", "last_k, top 2", "mine, top 2", "mine, top 2, original order"]
    assert [cell["label"] for cell in generator["cells"]] == cells
    assert report["settings"]["prices"] == {"prompt": 3.0, "answer": 15.5}
    assert report["items"]["judged"] == 4
    assert "--top-k 2" in report["command"] and "--limit 2" in report["command"]
    config.write_text("prunner = 'none'\n")
    refused = run("--config", config)
    assert refused.exit_code == 2
    assert "has the key 'prunner'; the known ones are" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [("--pruner", "bm26"), ("--top-k", 0), ("--prices", 1), ("--config", "missing.toml")],
)
def test_unusable_arguments_are_refused(
    files: list[str], tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    assert run(*files, *arguments, "--output", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_the_command_offers_every_pruner_there_is() -> None:
    assert set(DEFAULT_PRUNERS + MORE_PRUNERS) == set(known_pruners(PrunerOptions()))


def test_unanswerable_and_long_form_items_are_reported_apart(
    tmp_path: Path, scoring_folder: Path
) -> None:
    items = [
        replace(make_item("u", "---"), unanswerable=True),
        replace(make_item("l", "g--", answers=["a long answer"]), long_form=True),
        make_item("s", "g--", answers=["sea"]),
    ]
    records = [
        {"id": own.id, "question": own.query, "answers": list(own.answers)}
        | {"chunks": [{"text": chunk.text} for chunk in own.chunks]}
        | {"meta": {"unanswerable": own.unanswerable, "long_form": own.long_form}}
        for own in items
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ("--generator", scoring_folder, "--answer-tokens", 1, "--pruner", "none", "--json")
    report = json.loads(run(path, *options, "--output", tmp_path / "o", "--may-decline").stdout)
    figures = report["generators"][0]["by_source"]
    counts = {name: own["macro"]["none"]["n"] for name, own in figures.items() if own}
    assert counts == {
        "accuracy": 1,
        "exact_match": 1,
        "f1": 1,
        "long_form_f1": 1,
        "abstention": 1,
        "false_abstention": 2,
    }
    assert all("I don't know" in prompt for prompt in report["settings"]["prompt"].values())
    page = Reader((tmp_path / "o" / "report.html").read_text())
    assert page.loads == []
    verdicts = {row[2] for row in page.rows if len(row) == 4 and row[0] == "none"}
    assert verdicts == {"did not decline", "F1 0.00", "wrong"}


def test_a_budget_chosen_on_one_run_is_told_in_the_next(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    options = (
        *("--generator", scoring_folder, "--pruner", "none", "--pruner", "first_k"),
        *("--top-k", 1, "--top-k", 2, "--answer-tokens", 3, "--json"),
    )
    there = tmp_path / "there"
    report = json.loads(run(files[1], *options, "--output", there).stdout)
    assert report["chosen"] == []
    here = (files[0], *options, "--output", tmp_path / "here")
    report = json.loads(run(*here, "--chosen-on", there).stdout)
    [choice] = report["chosen"]
    # Both budgets are wrong throughout with a random model, so the smaller one is chosen.
    assert (choice["pruner"], choice["budget"], choice["accuracy"]["mean"]) == (
        "first_k",
        "top 1",
        0,
    )
    assert "--chosen-on there" in report["command"]
    tables = (tmp_path / "here" / "qa.md").read_text()
    assert "Budgets chosen on there, tiny" in tables
    with pytest.raises(InputError, match="3 of 3 items were in the run there, too"):
        run(files[1], *options, "--output", tmp_path / "same", "--chosen-on", there)


def test_without_files_the_shipped_set_is_judged(tmp_path: Path, scoring_folder: Path) -> None:
    options = ("--generator", scoring_folder, "--pruner", "closed_book", "--answer-tokens", 1)
    report = json.loads(run(*options, "--output", tmp_path / "out", "--json").stdout)
    assert report["items"] == {"judged": 72, "left_out": {}, "remarks": report["items"]["remarks"]}
    assert report["command"].startswith("at2-rag eval qa --pruner closed_book --top-k 1")
    assert [file["name"] for file in report["settings"]["files"]] == ["items.jsonl"]
    accuracy = report["generators"][0]["by_source"]["accuracy"]
    assert set(accuracy) == {"shipped_single", "shipped_multi_hop", "macro"}


def test_several_generators_stand_side_by_side(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    other = shutil.copytree(scoring_folder, tmp_path / "second")
    options = (
        *("--generator", scoring_folder, "--generator", other, "--pruner", "none"),
        *("--pruner", "first_k", "--top-k", 1, "--answer-tokens", 2, "--json"),
    )
    report = json.loads(run(*files, *options, "--output", tmp_path / "out").stdout)
    assert [own["name"] for own in report["generators"]] == ["tiny", "second"]
    tables = (tmp_path / "out" / "qa.md").read_text()
    start = tables.index("## Generators side by side")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tables[start:].splitlines()
        if line.startswith("|") and "---" not in line
    ]
    # Accuracy of two cells, then the difference of one to the other; the same model twice.
    heads, labels = ["cell", "tiny", "second"], ["none", "first_k, top 1"]
    assert [row[0] for row in rows[:5]] == ["cell", *labels, "cell", labels[1]]
    assert rows[0] == rows[3] == heads
    assert all(row[1] == row[2] for row in rows if row[0] in labels)
    assert "Generators side by side" in (tmp_path / "out" / "report.html").read_text()
