"""`at2-rag eval ranking` from files to report, with real systems over tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from at2_rag.errors import DataError
from at2_rag.readout.head_weights import HeadWeights
from at2_rag_evals.metrics import METRICS
from tests.evals.labelled_items import check_repeatable, make_item, run_eval, write_items

CHEAP = ("--system", "random", "--system", "first_k", "--system", "bm25")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    novels = [make_item(f"n{index}", "-g----", title="Emma") for index in range(5)]
    seas = [make_item(f"s{index}", "g--g-", source="seas") for index in range(4)]
    folder = tmp_path / "secret folder"
    folder.mkdir()
    return [
        write_items(folder / "novels.jsonl", [*novels, make_item("short", "g-")]),
        write_items(folder / "seas.jsonl", seas),
    ]


def report_of(*arguments: object) -> Any:
    return json.loads(run_eval("ranking", *arguments, "--json").stdout)


def test_all_systems_from_files_to_report(
    files: list[Path], tmp_path: Path, model_folder: Path, embedding_folder: Path
) -> None:
    output = tmp_path / "other folder" / "results"
    options = (
        *("--model", model_folder, "--head-weights", "uniform"),
        *("--embedding-model", embedding_folder, "--output", output, "--pad-to", 12),
    )
    report = report_of(*files, *options)
    assert report == json.loads((output / "ranking.json").read_text())
    assert list(report["settings"]["systems"]) == [
        *("random", "first_k", "bm25", "minilm", "all_heads_mean", "at2")
    ]
    natural, padded = report["sets"]
    assert natural["items"] == padded["items"] == {"novels": 5, "seas": 4}
    assert natural["left_out"] == {"novels": {"fewer than 4 chunks": 1}}
    assert natural["items_by_chunks"] == {"4-6": {"novels": 5, "seas": 4}}
    assert padded["items_by_chunks"] == {"11-20": {"novels": 5, "seas": 4}}
    macro = natural["by_source"]["gold_first"]["macro"]
    assert macro["first_k"]["mean"] == 0.5
    assert macro["at2"] == macro["all_heads_mean"]
    assert natural["differences"]["gold_first"]["macro"]["all_heads_mean"]["mean"] == 0.0
    assert natural["by_source"]["gold_first"]["novels"]["at2"]["clusters"] == 1
    lines = [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()]
    assert len(lines) == 18
    assert lines[0]["systems"]["first_k"] == {
        **{name: metric(range(6), [False, True, *[False] * 4]) for name, metric in METRICS.items()},
        "gold_ranks": [2],
        "truncated": 0,
    }
    questions = [verdict["question"] for verdict in report["verdicts"]]
    assert [name in question for name, question in zip(("natural", "12"), questions, strict=True)]
    assert {verdict["answer"] for verdict in report["verdicts"]} <= {
        *("Yes", "No", "Can't tell from 9 questions"),
    }
    assert "## Padded to 12 chunks" in (output / "ranking.md").read_text()
    check_repeatable(
        output,
        lambda: report_of(*files, *options),
        hidden=[tmp_path, model_folder.parent, embedding_folder.parent, "secret folder"],
    )


def test_named_weights_are_systems_of_their_own(
    files: list[Path], tmp_path: Path, model_folder: Path
) -> None:
    HeadWeights.uniform(layers=2, heads=4, reading="joint").save(tmp_path / "hidden" / "short")
    report = report_of(
        *(*files, "--model", model_folder, "--head-weights", "uniform"),
        *("--system", "at2", "--system", "first_k", "--weights", "same=uniform"),
        *("--weights", f"short={tmp_path / 'hidden' / 'short'}"),
    )
    assert "--weights same=uniform --weights short=short" in report["command"]
    assert list(report["settings"]["systems"]) == ["at2", "same", "short", "first_k"]
    [natural] = report["sets"]
    macro = natural["by_source"]["ndcg_at_10"]["macro"]
    assert macro["at2"] == macro["same"] != macro["short"]
    assert natural["differences"]["ndcg_at_10"]["macro"].keys() == {"same", "short", "first_k"}


def test_named_embeddings_are_alternatives_in_the_verdict(
    files: list[Path], model_folder: Path, embedding_folder: Path
) -> None:
    report = report_of(
        *(*files, "--model", model_folder, "--head-weights", "uniform", "--system", "at2"),
        *("--embedding", f"other={embedding_folder}"),
    )
    assert list(report["settings"]["systems"]) == ["at2", "other"]
    [verdict] = report["verdicts"]
    assert " other with ." in verdict["reasons"][0]


def test_tables_are_for_people_and_progress_goes_to_stderr(files: list[Path]) -> None:
    result = run_eval("ranking", *files, *CHEAP)
    assert "nDCG@10, natural size" in result.stdout and "macro" in result.stdout
    assert "adversarial to BM25" in result.stdout
    assert "9/9" not in result.stdout and "9/9" in result.stderr


def test_files_that_cannot_be_judged_are_refused(files: list[Path], tmp_path: Path) -> None:
    path = write_items(tmp_path / "short.jsonl", [make_item("a", "g-"), make_item("b", "----")])
    with pytest.raises(DataError, match=r"none of the 2 items can be judged .*fewer than 4"):
        run_eval("ranking", path, *CHEAP)
    with pytest.raises(DataError, match="no item can be padded to 500 chunks .*too few"):
        run_eval("ranking", *files, *CHEAP, "--pad-to", 500)
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"bad\.jsonl, line 1: not JSON"):
        run_eval("ranking", tmp_path / "bad.jsonl", *CHEAP)
