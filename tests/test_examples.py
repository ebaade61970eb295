"""Each example runs from one command, offline, on the real default model."""

from __future__ import annotations

import runpy
import socket
from pathlib import Path
from typing import Any

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
def test_an_example_runs_offline(
    example: str,
    first: str,
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("sys.argv", [example])
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / example), run_name="__main__")
    shown = capsys.readouterr().out
    assert first in shown
    assert answer in shown.partition("\n\n")[2]
