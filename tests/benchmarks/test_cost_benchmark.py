"""The cost benchmark: whole on a tiny model, and its figures against numbers by hand."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from at2_rag.model.cache import CACHE_VARIABLE
from tests.tiny_models import tiny_model, tiny_tokenizer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ["cold", "ready states", "cold (together)", "ready states (together)", "joint"]
OTHERS = ["our answer attribution", "masked-state regression", "32 removals"]


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "cost.py"), "--model", str(folder / "tiny")]
        + ["--data", str(folder / "data.jsonl"), "--prompt-tokens", "100", "2000"]
        + ["--items", "2", "--repeats", "3", "--threads", "1", "--dtype", "float32", *arguments],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "PYTHONIOENCODING": "utf-8",
            CACHE_VARIABLE: str(folder / "cache"),
        },
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    tiny_model(num_hidden_layers=3).save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    items = [
        {
            "id": str(item),
            "question": "What was opened?",
            "chunks": [
                {"text": f"Bridge {item} {place} was opened in 1932.", "is_gold": place == 0}
                for place in range(10)
            ],
        }
        for item in range(3)
    ]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "data.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    run = _run(folder, "--output", str(folder / "out"))
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= 80
    text = (folder / "out" / "cost.json").read_text(encoding="utf-8")
    assert str(folder) not in text
    tables = (folder / "out" / "cost.md").read_text(encoding="utf-8")
    assert "python benchmarks/cost.py --data data.jsonl --output out" in tables
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.skipif(importlib.util.find_spec("at2") is not None, reason="the reference is here")
def test_every_case_is_timed_and_the_reference_left_out_with_a_note(report: dict[str, Any]) -> None:
    rows = {row["case"]: row for row in report["cost"]["rows"]}
    assert set(rows) == {*OURS, *OTHERS}
    assert rows["32 removals"]["than_removal"] == {"median": 1, "low": 1, "high": 1, "n": 2}
    for row in rows.values():
        assert row["than_removal"]["n"] == row["seconds"]["n"] == 2  # two rounds of three runs
        assert row["than_reference"] is None
    assert "pip install --target REFERENCE --no-deps at2==0.0.1" in report["settings"]["reference"]
    assert set(report["removal_batches"]) == {"1", "4", "8"}
    best = min(report["removal_batches"], key=lambda size: report["removal_batches"][size])
    assert report["settings"]["batch"] == int(best)
    values = [check["value"] for check in report["cost"]["checks"]]
    expected = [rows[case]["than_removal"]["median"] for case in ("cold", "ready states")]
    assert values == pytest.approx(expected, abs=0.01)


def test_the_peak_of_each_case_and_of_collecting_is_there(report: dict[str, Any]) -> None:
    peaks = report["memory"]["peaks"]
    assert set(peaks) >= {*OURS, *OTHERS, "collecting ablations"}
    assert all(peak["peak"] > 0 for peak in peaks.values())
    collection = report["memory"]["checks"][-1]
    assert collection["value"] == pytest.approx(
        peaks["collecting ablations"]["peak"] / 1e6, abs=0.06
    )
    assert (collection["limit"], collection["at_least"], collection["met"]) == (1000, False, True)


def test_figures_are_medians_within_and_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    sample = importlib.import_module("interleaved").Sample
    figures = importlib.import_module("cost_figures")
    runs = [
        ("cold", 0, (0.4, 0.6)),
        ("cold", 1, (1.0, 4.0, 1.0)),
        ("ready states", 0, (0.1,)),
        ("ready states", 1, (0.3,)),
        ("ready states (together)", 0, (0.05,)),
        ("ready states (together)", 1, (0.05,)),
        ("32 removals", 0, (10.0,)),
        ("32 removals", 1, (30.0,)),
        ("reference AT2, answer generated", 0, (2.0,)),
        ("reference AT2, answer generated", 1, (3.0,)),
    ]
    samples = [sample(case, number, s, s, {}) for case, number, own in runs for s in own]
    rows = figures.summarise(samples)
    by_case = {row.case: row for row in rows}
    assert rows[0].case == "ready states (together)"  # the fastest first
    assert by_case["cold"].seconds.median == 0.75  # of 0.5 and 1
    assert by_case["cold"].than_removal.median == 25  # of 20 and 30
    assert by_case["cold"].than_reference.median == 3.5  # of 4 and 3
    found = [(check.value, check.limit, check.met) for check in figures.time_checks(rows)]
    assert found == [
        (25, 20, True),
        (100, 100, True),
        (3.5, 2.5, True),
        (15, 12, True),
        (50, 40, True),
    ]

    peak = importlib.import_module("peak_memory").CallPeak
    sizes = {
        "cold": 70,
        "reference AT2, answer generated": 350,
        "reference AT2, answer given": 280,
        "collecting ablations": 1001,
    }
    checks = figures.memory_checks({name: peak(mb * 10**6, True) for name, mb in sizes.items()})
    assert [(check.value, check.met) for check in checks] == [
        (0.2, True),
        (0.25, False),
        (1001, False),
    ]


@pytest.mark.skipif(importlib.util.find_spec("at2") is not None, reason="the reference is here")
def test_a_folder_without_the_reference_is_one_line(folder: Path) -> None:
    run = _run(folder, "--reference", str(folder))
    assert run.returncode == 1
    message = run.stderr.strip().splitlines()[-1]
    assert message.startswith("error: the reference can't be imported")
    assert "pip install --target" in message
