"""The training benchmark's figures from a run's record, against numbers by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"
RECORD = {
    "command": "at2-rag train a.jsonl --output run --signal both",
    "samples": {"a": 30, "b": 10},
    "run": {
        "seconds": {"loading the model": 2.0, "reading": 120.0, "cross-validation": 7.0, "fit": 1},
        "peak_memory_mb": 1234,
    },
}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def write(folder: Path, record: object) -> Path:
    folder.mkdir()
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_run_and_what_more_examples_would_take(tmp_path: Path) -> None:
    output = tmp_path / "out"
    folder = write(tmp_path / "run", RECORD)
    done = run(folder, "--extrapolate", 400, "--output", output)
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "training.json").read_text())
    assert report["command"] == ("python benchmarks/training.py run --extrapolate 400 --output out")
    measured, more = report["runs"]
    assert (measured["examples"], measured["reading"], measured["fitting"]) == (40, 120.0, 10.0)
    assert (measured["peak_memory_mb"], measured["measured"]) == (1234, True)
    assert (more["examples"], more["reading"], more["fitting"]) == (400, 1200.0, 100.0)
    assert (more["peak_memory_mb"], more["measured"]) == (None, False)
    text = (output / "training.md").read_text()
    assert "| 40 | 120 | 3.00 | 10 | 1,234 |" in text
    assert "| 400 (extrapolated) | 1,200 | 3.00 | 100 |  |" in text
    assert str(tmp_path) not in text + json.dumps(report)


def test_a_run_whose_examples_were_read_before_says_nothing(tmp_path: Path) -> None:
    seconds = {**RECORD["run"]["seconds"], "reading": 0.1}  # type: ignore[index]
    folder = write(tmp_path / "run", {**RECORD, "run": {"seconds": seconds, "peak_memory_mb": 1}})
    done = run(folder)
    assert done.returncode == 1
    assert "an earlier run had read them" in done.stderr
    assert "no record of a training run" in run(tmp_path).stderr
