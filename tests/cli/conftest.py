"""A cache for each test, and options that load the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of everything at2-rag keeps, not made yet."""
    monkeypatch.setenv("AT2_RAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def loading(model_folder: Path) -> list[str]:
    """Options of commands that load a pruner."""
    return ["--model", str(model_folder), "--head-weights", "uniform", "--dtype", "float32"]
