"""`at2-rag eval ranking` from files to report, with real systems over tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from at2_rag.errors import DataError
from at2_rag.readout.head_weights import HeadWeights
from at2_rag_evals.cli import eval_group
from at2_rag_evals.metrics import METRICS
from tests.evals.labelled_items import make_item, write_items

CHEAP = ("--system", "random", "--system", "first_k", "--system", "bm25")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    novels = [make_item(f"n{index}", "-g----", title="Emma") for index in range(5)]
    seas = [make_item(f"s{index}", "g--g-", source="seas") for index in range(4)]
    folder = tmp_path / "secret place"
    folder.mkdir()
    return [
        str(write_items(folder / "novels.jsonl", [*novels, make_item("short", "g-")])),
        str(write_items(folder / "seas.jsonl", seas)),
    ]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(eval_group, ["ranking", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_all_systems_from_files_to_report(
    files: list[str], tmp_path: Path, scoring_folder: Path, embedding_folder: Path
) -> None:
    output = tmp_path / "other place" / "results"
    options = (
        *("--model", scoring_folder, "--head-weights", "uniform"),
        *("--embedding-model", embedding_folder, "--output", output, "--pad-to", 12),
    )
    result = run(*files, *options, "--json")
    report = json.loads(result.stdout)
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
    assert "## Padded to 12 chunks" in (output / "ranking.md").read_text()

    before = {path: path.read_bytes() for path in output.iterdir()}
    assert json.loads(run(*files, *options, "--json").stdout) == report
    assert {path: path.read_bytes() for path in output.iterdir()} == before
    everything = b"".join(before.values())
    for folder in (tmp_path, scoring_folder.parent, embedding_folder.parent):
        assert str(folder).encode() not in everything
    assert b"secret place" not in everything and b"other place" not in everything


def test_named_weights_are_systems_of_their_own(
    files: list[str], tmp_path: Path, scoring_folder: Path
) -> None:
    HeadWeights.uniform(layers=2, heads=4, reading="joint").save(tmp_path / "hidden" / "short")
    options = (
        *("--model", scoring_folder, "--head-weights", "uniform", "--system", "at2"),
        *("--system", "first_k", "--weights", "same=uniform"),
        *("--weights", f"short={tmp_path / 'hidden' / 'short'}", "--json"),
    )
    report = json.loads(run(*files, *options).stdout)
    assert "--weights same=uniform --weights short=short" in report["command"]
    assert list(report["settings"]["systems"]) == ["at2", "same", "short", "first_k"]
    [natural] = report["sets"]
    macro = natural["by_source"]["ndcg_at_10"]["macro"]
    assert macro["at2"] == macro["same"] != macro["short"]
    assert natural["differences"]["ndcg_at_10"]["macro"].keys() == {"same", "short", "first_k"}
    refused = run(*files, "--weights", "bm25=uniform")
    assert refused.exit_code == 2 and "is taken" in refused.stderr


def test_tables_are_for_people_and_progress_goes_to_stderr(files: list[str]) -> None:
    result = run(*files, *CHEAP)
    assert "nDCG@10, natural size" in result.stdout
    assert "novels" in result.stdout and "macro" in result.stdout
    assert "9/9" not in result.stdout and "9/9" in result.stderr
    assert "adversarial to BM25" in result.stdout


def test_limit_and_seed_are_heeded(files: list[str]) -> None:
    def report(*options: object) -> Any:
        return json.loads(run(*files, *CHEAP, "--json", *options).stdout)

    assert report("--limit", 3)["sets"][0]["items"] == {"novels": 3, "seas": 3}
    first, again, other = report(), report("--seed", 0), report("--seed", 5)
    assert first["sets"][0]["by_source"] == again["sets"][0]["by_source"]
    assert first["sets"][0]["by_source"] != other["sets"][0]["by_source"]


def test_files_without_a_usable_item_are_refused(tmp_path: Path) -> None:
    path = write_items(tmp_path / "short.jsonl", [make_item("a", "g-"), make_item("b", "----")])
    with pytest.raises(DataError, match=r"none of the 2 items can be judged .*fewer than 4"):
        run(path, *CHEAP)
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"bad\.jsonl, line 1: not JSON"):
        run(tmp_path / "bad.jsonl", *CHEAP)


def test_padding_that_no_item_allows_is_refused(files: list[str]) -> None:
    with pytest.raises(DataError, match="no item can be padded to 500 chunks .*too few"):
        run(*files, *CHEAP, "--pad-to", 500)
