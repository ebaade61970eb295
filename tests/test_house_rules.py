"""Rules of the house that neither ruff nor mypy holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("at2_rag", "integrations", "evals", "tests", "examples", "benchmarks")
MOST_LINES = 400


def long_files(root: Path) -> dict[str, int]:
    """Files with more lines than the house allows, and how many they have."""
    lengths = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in SOURCES
        for path in (root / folder).rglob("*.py")
    }
    assert lengths
    return {name: length for name, length in lengths.items() if length > MOST_LINES}


def test_no_file_is_longer_than_400_lines() -> None:
    assert long_files(ROOT) == {}


@pytest.mark.parametrize(("lines", "long"), [(400, {}), (401, {"evals/a/b.py": 401})])
def test_the_test_of_lengths_can_fail(tmp_path: Path, lines: int, long: dict[str, int]) -> None:
    (tmp_path / "evals/a").mkdir(parents=True)
    (tmp_path / "evals/a/b.py").write_text("pass\n" * lines)
    assert long_files(tmp_path) == long


def test_types_are_checked_wherever_there_is_code() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(settings["tool"]["mypy"]["files"]) == set(SOURCES)


@pytest.mark.parametrize("folder", ["integrations", "evals"])
def test_no_folder_hides_another_package(folder: str) -> None:
    names = {path.name for path in (ROOT / folder).iterdir() if path.is_dir()}
    assert names.isdisjoint({"langchain", "llama_index", "datasets"})
    assert not (ROOT / folder / "__init__.py").exists()
