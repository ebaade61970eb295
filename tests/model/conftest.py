"""A tiny wheel that pip finds, and a cache for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from at2_rag.model.wheel import WheelModel
from tests.tiny_wheel import only_these_wheels, write_tiny_wheel


@pytest.fixture(scope="package")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="package")
def tiny(wheels: Path) -> WheelModel:
    return write_tiny_wheel(wheels)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Path) -> Path:
    only_these_wheels(monkeypatch, wheels, tmp_path / "cache")
    return tmp_path / "cache"
