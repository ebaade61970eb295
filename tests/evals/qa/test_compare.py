"""Two runs compared: differences known by hand, and folders that can't be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from at2_rag.errors import InputError
from at2_rag_evals.cli import eval_group
from at2_rag_evals.qa.compare import compare_runs
from at2_rag_evals.qa.judging import METRIC_TITLES
from at2_rag_evals.qa.results_folder import FORMAT


def line(number: int, value: float | None, **other: Any) -> dict[str, Any]:
    metrics: dict[str, float | None] = dict.fromkeys(METRIC_TITLES)
    values: dict[str, Any] = {"generator": "g", "pruner": "none", "budget": None, "order": None}
    values |= {"gold_position": None, "source": "ab"[number % 2], "id": str(number)}
    values |= {"content": str(number), "cluster": number}
    return {**values, "metrics": {**metrics, "accuracy": value}, **other}


def folder(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path.mkdir()
    (path / "summary.json").write_text(json.dumps({"eval": "qa", "format": FORMAT}))
    (path / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_differences_are_over_the_items_that_both_answered(tmp_path: Path) -> None:
    values = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, None, 1.0]
    first = folder(tmp_path / "A", [line(*numbered) for numbered in enumerate(values)])
    others = [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    lines = [line(*numbered) for numbered in enumerate(others)]
    lines.append(line(7, 0.0, content="another question"))
    second = folder(tmp_path / "B", [*lines, line(0, 1.0, pruner="bm25", budget="top 1")])
    compared = compare_runs(first, second, seed=0)
    accuracy = compared.differences["accuracy"]
    # Of source a: items 0, 2, 4 (6 has no answer in A), of b: 1, 3, 5 (7 isn't the same).
    assert accuracy["a"]["none"].mean == pytest.approx(2 / 3) and accuracy["a"]["none"].n == 3
    assert accuracy["b"]["none"].mean == pytest.approx(-1 / 3)
    assert accuracy["macro"]["none"].mean == pytest.approx(1 / 6)
    assert (compared.items, compared.other_items) == (7, 1)
    assert compared.unmatched == ("bm25, top 1 (in B)",) and compared.significant() == []
    assert compared.differences["f1"] == {}
    back = compare_runs(second, first, seed=0).differences["accuracy"]["a"]
    assert back["none"].mean == -accuracy["a"]["none"].mean


def test_a_significant_difference_between_one_generator_and_another(tmp_path: Path) -> None:
    first = folder(tmp_path / "A", [line(n, float(n % 5 > 0)) for n in range(40)])
    second = folder(tmp_path / "B", [line(n, 0.0, generator="h") for n in range(40)])
    [sentence] = compare_runs(first, second, seed=0).significant()
    assert sentence.startswith("Accuracy (answer contained), every chunk: A minus B is +0.800 [+0.")


def test_the_command_prints_tables_or_json(tmp_path: Path) -> None:
    folders = [str(folder(tmp_path / name, [line(n, 1.0) for n in range(4)])) for name in "AB"]
    result = CliRunner().invoke(eval_group, ["compare", *folders], catch_exceptions=False)
    assert "4 items in both, 0 in one alone" in result.stdout
    report = json.loads(CliRunner().invoke(eval_group, ["compare", *folders, "--json"]).stdout)
    assert report["differences"]["accuracy"]["macro"]["none"]["mean"] == 0


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    first = folder(tmp_path / "A", [line(0, 1.0)])
    with pytest.raises(InputError, match="have no cells in common"):
        compare_runs(first, folder(tmp_path / "B", [line(0, 1.0, pruner="bm25")]), seed=0)
    with pytest.raises(InputError, match="have no items in common"):
        compare_runs(first, folder(tmp_path / "C", [line(1, 1.0)]), seed=0)
    (tmp_path / "D").mkdir()
    with pytest.raises(InputError, match="holds no summary.json"):
        compare_runs(first, tmp_path / "D", seed=0)
    for number, content in enumerate(("{", "[]\n", '{"id": "1"}\n')):
        torn = folder(tmp_path / f"torn{number}", [line(0, 1.0)])
        (torn / "items.jsonl").write_text(content)
        with pytest.raises(InputError, match=r"items\.jsonl can't be read"):
            compare_runs(torn, tmp_path / "C", seed=0)
    for content, message in (('{"eval": "qa", "format": 99}', "in format 99"), ("[", "be read")):
        (first / "summary.json").write_text(content)
        with pytest.raises(InputError, match=message):
            compare_runs(first, tmp_path / "C", seed=0)
