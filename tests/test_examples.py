"""Each example runs from one command, offline, on the real default model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.default_model
@pytest.mark.parametrize(
    ("example", "first", "answer"),
    [
        ("prune_passages.py", "Io", "hundreds of active volcanoes"),
        ("langchain_rag.py", "Lise Meitner", "Meitner"),
        ("llama_index_rag.py", "Danube", "Danube"),
        ("cite_answer.py", "solar system. [1]", "[1] Io"),
    ],
)
def test_an_example_runs_offline_from_one_command(example: str, first: str, answer: str) -> None:
    run = subprocess.run(
        [sys.executable, EXAMPLES / example],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
    )
    assert run.returncode == 0, run.stderr
    assert first in run.stdout
    assert answer in run.stdout.partition("\n\n")[2]
