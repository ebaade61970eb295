"""Rules of the house that no linter holds."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_FILES = 12


def test_types_are_checked_wherever_there_is_code() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/**/*.py")}
    sources = {folder for folder in folders if not folder.startswith(".")} - {"docs", "build"}
    assert sources <= set(settings["tool"]["mypy"]["files"])


def test_every_room_is_small_and_says_what_belongs_there() -> None:
    rooms = {path.parent for path in (ROOT / "at2_rag").rglob("*.py")}
    crowded = {room.name: len(list(room.glob("*.py"))) for room in rooms}
    assert {name: files for name, files in crowded.items() if files > MOST_FILES} == {}
    silent = [
        room.name
        for room in rooms
        if len(ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "") < 60
    ]
    assert silent == []


@pytest.mark.parametrize("folder", ["integrations", "evals"])
def test_no_folder_hides_another_package(folder: str) -> None:
    names = {path.name for path in (ROOT / folder).iterdir() if path.is_dir()}
    assert names.isdisjoint({"langchain", "llama_index", "haystack", "mcp", "datasets"})
    assert not (ROOT / folder / "__init__.py").exists()
