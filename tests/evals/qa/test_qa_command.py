"""`at2-rag eval qa` from files to report, with real pruners, tiny models and a real server."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from at2_rag.errors import InputError
from at2_rag_evals.names import shown
from at2_rag_evals.qa.generators.base import GenerationError
from at2_rag_evals.qa.pruners.registry import pruner_table
from at2_rag_evals.qa.request import DEFAULT_PRUNERS, MORE_PRUNERS, QARequest
from at2_rag_evals.system_options import EXPERIMENTS
from tests.evals.labelled_items import make_item, write_items
from tests.evals.qa.command import lines, report, run
from tests.evals.qa.served import served
from tests.page_reader import Reader
from tests.text.test_tokens import openai_cache


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    answer = {key: value for key, value in line["answer"].items() if "seconds" not in key}
    return {**line, "prune_seconds": None, "answer": answer}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "secret place"
    folder.mkdir()
    novels = [make_item(f"n{number}", "-g---", answers=[f"n{number}"]) for number in range(6)]
    seas = [make_item(f"s{n}", "g--g-", source="seas", answers=["no"]) for n in range(3)]
    odd = [make_item("unanswered", "g-"), make_item("one", "g", answers=["one"])]
    return [
        str(write_items(folder / "novels.jsonl", [*novels, *odd])),
        str(write_items(folder / "seas.jsonl", seas)),
    ]


def test_all_pruners_from_files_to_report(
    files: list[str], tmp_path: Path, scoring_folder: Path, embedding_folder: Path
) -> None:
    output = tmp_path / "other place" / "results"
    options = (
        *("--generator", scoring_folder, "--model", scoring_folder, "--head-weights", "uniform"),
        *("--embedding-model", embedding_folder, "--answer-tokens", 4, "--output", output),
        *("--top-k", 2, "--max-tokens", 60),
    )
    first = report(*files, *options)
    assert first == json.loads((output / "summary.json").read_text())
    assert "at2-rag eval qa novels.jsonl seas.jsonl " in first["command"]
    assert first["items"]["judged"] == 10
    assert first["notes"][-1].startswith(
        "The generator tiny has the weights of the model that scores for mean of all heads, at2: "
    )
    assert first["items"]["left_out"] == {"novels": {"no answers": 1}}
    assert first["items"]["remarks"] == {"novels": {"one chunk": 1}}
    [generator] = first["generators"]
    budgeted = [name for name in DEFAULT_PRUNERS if name not in ("none", "closed_book", "oracle")]
    cells = ["none", "closed_book", "oracle"]
    cells += [f"{name}, {budget}" for name in budgeted for budget in ("top 2", "60 tokens")]
    assert [cell["label"] for cell in generator["cells"]] == cells
    assert generator["totals"]["closed_book"]["context_tokens"] == 0
    tight = [cell for cell in cells if cell.endswith("60 tokens")]
    assert all(generator["totals"][cell]["context_tokens"] <= 60 for cell in tight)
    assert generator["by_source"]["gold_recall"]["macro"]["oracle"]["mean"] == 1
    records = lines(output)
    assert len(records) == 10 * len(cells)
    kept = {(line["pruner"], line["budget"], line["id"]): line["kept"] for line in records}
    assert kept["first_k", "top 2", "n0"] == [0, 1]
    assert kept["at2", "top 2", "one"] == kept["oracle", None, "one"] == [0]
    page = Reader((output / "report.html").read_text())
    assert page.loads == [] and page.counts["svg"] == 3  # macro and two sources
    assert "1, 2" in {row[-1] for row in page.rows if row and row[0] == "first chunks, top 2"}
    assert {row[0] for row in page.rows} >= {*map(shown, cells), "novels", "seas"}

    second = report(*files, *options)  # from the store
    assert second["generators"][0]["by_source"] == generator["by_source"]
    assert [timeless(line) for line in lines(output)] == [timeless(line) for line in records]
    everything = b"".join(path.read_bytes() for path in output.rglob("*") if path.is_file())
    for folder in (tmp_path, scoring_folder.parent, embedding_folder.parent):
        assert str(folder).encode() not in everything
    assert b"secret place" not in everything


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Options of a remote generator, whose tokens a vocabulary of llama-index-core counts."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(openai_cache() or pytest.skip("no vocabulary")))
    pruners = [part for name in ("none", "first_k", "bm25") for part in ("--pruner", name)]
    generator = ("--generator", "openai:gpt-4o", "--token-counter", "cl100k_base")
    return (*generator, "--parallel", "1", "--attempts", "1", *pruners)


def answers_in(store: Path) -> int:
    with closing(sqlite3.connect(store)) as database:
        query = "SELECT COUNT(*) FROM results WHERE namespace LIKE 'gpt-4o %'"
        return int(database.execute(query).fetchone()[0])


def test_a_stopped_run_loses_nothing_and_counts_nothing_twice(
    files: list[str], tmp_path: Path, remote: tuple[str, ...]
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with served({"What is s1?": ["401"]}) as server:
        arguments = (*files, *remote, "--base-url", server.url)
        with pytest.raises(GenerationError, match="401"):
            run(*arguments, "--output", stopped)
        before, stored = len(server.requests), answers_in(stopped / "store.sqlite")
        assert 0 < stored < before and not (stopped / "summary.json").exists()
        run(*arguments, "--output", stopped)
        after = len(server.requests)
        assert after - before == len(set(server.prompts)) - stored
        assert answers_in(stopped / "store.sqlite") == len(set(server.prompts))
        run(*arguments, "--output", stopped)
        assert len(server.requests) == after  # a finished run costs nothing
        run(*arguments, "--output", whole)
    records, all_at_once = lines(stopped), lines(whole)
    assert [timeless(line) for line in records] == [timeless(line) for line in all_at_once]
    cells = Counter((line["pruner"], line["budget"], line["id"]) for line in records)
    assert set(cells.values()) == {1} and len(cells) == 10 * 5


def test_what_a_server_refused_is_counted_and_left_out(
    files: list[str], tmp_path: Path, remote: tuple[str, ...]
) -> None:
    with served({"n1?": ["400", "400"]}) as server:
        options = ("--base-url", server.url, "--prices", 2, 10, "--output", tmp_path / "out")
        [generator] = report(*files, *remote, *options)["generators"]
    assert generator["unanswered"] == {"no answer from none": 1}
    assert generator["by_source"]["accuracy"]["novels"]["none"]["n"] == 6
    assert {line["id"] for line in lines(tmp_path / "out") if line["error"]} == {"n1"}
    assert generator["totals"]["none"]["cost"] == pytest.approx(9 * (11 * 2 + 7 * 10) / 1e6)


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
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    # `[eval.qa]` of at2-rag; the root command is `eval` here.
    config.write_text("\n".join(["[qa]", *lines]))
    printed = report("--config", config, "--limit", 2)
    [generator] = printed["generators"]
    cells = ["none", "last_k, top 2", "mine, top 2", "mine, top 2, original order"]
    assert [cell["label"] for cell in generator["cells"]] == cells
    assert printed["items"]["judged"] == 4
    for part in ("--top-k 2", "--limit 2", "--weights mine=uniform", "--prices 3 15.5"):
        assert part in printed["command"]

    marker = tmp_path / "out" / "summary.json"  # of another version
    marker.write_text(json.dumps({**printed, "format": 99}))
    with pytest.raises(InputError, match="in format 99, this version reads and writes"):
        run("--config", config)


@pytest.mark.parametrize("arguments", [("--pruner", "bm26"), ("--prices", 1), ("--config", "x")])
def test_unusable_arguments_are_refused(
    files: list[str], tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    assert run(*files, *arguments, "--output", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_the_command_offers_every_pruner_there_is(tmp_path: Path) -> None:
    names = set(pruner_table(QARequest(output=tmp_path)))
    assert set(DEFAULT_PRUNERS + MORE_PRUNERS) == names
    listed = {line.split(" ")[0]: line for line in run("--all").stdout.splitlines()[1:]}
    assert names == set(listed) - {""}
    assert {name for name in names if " yes " in listed[name]} == set(DEFAULT_PRUNERS)
    wrong = run("--pruner", "bm26", "--output", tmp_path).stderr
    for text in (run("--help").stdout, wrong):
        words = set(text.replace(",", " ").replace(";", " ").split())
        assert names - words == EXPERIMENTS & names != set()
    assert "'bm26' is none of none, " in wrong and wrong.endswith("--all lists more\n")


def test_unanswerable_and_long_form_items_are_reported_apart(
    tmp_path: Path, scoring_folder: Path
) -> None:
    chunks = [{"text": "sea", "is_gold": True}, {"text": "river"}]
    kinds: list[dict[str, Any]] = [{"unanswerable": True}, {"long_form": True}, {}]
    records = [
        {"id": str(n), "question": "What?", "answers": ["sea"], "chunks": chunks, **kind}
        for n, kind in enumerate(kinds)
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ("--generator", scoring_folder, "--answer-tokens", 1, "--pruner", "none")
    printed = report(path, *options, "--output", tmp_path / "o", "--may-decline")
    assert all("I don't know" in prompt for prompt in printed["settings"]["prompt"].values())
    page = Reader((tmp_path / "o" / "report.html").read_text())
    verdicts = {row[2] for row in page.rows if len(row) == 4 and row[0] == "every chunk"}
    assert page.loads == [] and verdicts == {"did not decline", "F1 0.00", "wrong"}


def test_a_budget_chosen_on_one_run_is_reported_in_the_next(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    options = (
        *("--generator", scoring_folder, "--pruner", "none", "--pruner", "first_k"),
        *("--top-k", 1, "--top-k", 2, "--answer-tokens", 3),
    )
    there = tmp_path / "there"
    assert report(files[1], *options, "--output", there)["chosen"] == []
    here = (files[0], *options, "--output", tmp_path / "here")
    printed = report(*here, "--chosen-on", there)
    [choice] = printed["chosen"]
    # Both budgets are wrong throughout with a random model, so the smaller one is chosen.
    assert (choice["pruner"], choice["budget"]) == ("first_k", "top 1")
    assert choice["accuracy"]["mean"] == 0 and "--chosen-on there" in printed["command"]
    assert "Budgets chosen on there, tiny" in (tmp_path / "here" / "qa.md").read_text()


def test_without_files_the_shipped_set_is_judged(tmp_path: Path, scoring_folder: Path) -> None:
    options = ("--generator", scoring_folder, "--pruner", "closed_book", "--answer-tokens", 1)
    printed = report(*options, "--output", tmp_path / "out")
    assert (printed["items"]["judged"], printed["items"]["left_out"]) == (108, {})
    assert [file["name"] for file in printed["settings"]["files"]] == ["items.jsonl"]


def test_tables_are_for_people_and_generators_stand_side_by_side(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    other = shutil.copytree(scoring_folder, tmp_path / "second")
    generators = ("--generator", scoring_folder, "--generator", other, "--answer-tokens", 2)
    pruners = ("--pruner", "none", "--pruner", "first_k", "--top-k", 1, "--limit", 2)
    result = run(*files, *generators, *pruners, "--output", tmp_path / "out")
    assert "Summary, tiny" in result.stdout and "Summary, second" in result.stdout
    written = json.loads((tmp_path / "out" / "summary.json").read_text())["verdicts"]
    assert [verdict["question"] for verdict in written] == [
        "Does pruning help tiny?",
        "Does pruning help second?",
    ]
    last = " ".join(result.stdout.split())  # lines are wrapped
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    markdown = (tmp_path / "out" / "qa.md").read_text()
    for verdict in written:
        reasons = " ".join(verdict["reasons"])
        assert f"{verdict['question']} {verdict['answer']}: {reasons}" in last
        assert f"**{verdict['question']} {verdict['answer']}:** {reasons}" in markdown
        assert reasons in page
    assert last.endswith(reasons)
    assert (
        page.index(reasons)
        < page.index("<table>")
        < page.index("<svg ")
        < page.index("Where the figures come from")
    )
    assert "second: answers from first_k, top 1: 4/4" in result.stderr
    assert "all cells: 4/4" in result.stderr
    assert "| novels | 2 | 5 beyond the first 2, 1 no answers |" in markdown
    _, side_by_side = markdown.split("## Generators side by side")
    for cell in ("every chunk", "first chunks, top 1"):  # the same model twice
        [values] = re.findall(rf"^\| {cell} +\|(.*)\|(.*)\|$", side_by_side, re.MULTILINE)[:1]
        assert values[0].strip() == values[1].strip()
