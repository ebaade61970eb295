"""What the adapter packages export, and what they say where their framework is missing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {
    "langchain_at2_rag": ("langchain_core", "langchain"),
    "llama_index_at2_rag": ("llama_index", "llama-index"),
}
BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[2]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
try:
    __import__(sys.argv[1])
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_framework_names_the_pip_line(package: str) -> None:
    framework, extra = PACKAGES[package]
    command = [sys.executable, "-c", BLOCKED, package, framework]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.startswith("ImportError ")
    assert f'pip install "at2-rag[{extra}]"' in output


@pytest.mark.parametrize("package", PACKAGES)
def test_other_missing_modules_are_not_blamed_on_the_framework(package: str) -> None:
    command = [sys.executable, "-c", BLOCKED, package, "torch"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "pip install" not in output
    assert "'torch'" in output


@pytest.mark.parametrize("package", PACKAGES)
def test_adapters_need_only_their_own_framework(package: str) -> None:
    [other] = [framework for name, (framework, _) in PACKAGES.items() if name != package]
    command = [sys.executable, "-c", BLOCKED, package, other]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("langchain_at2_rag", ["AT2DocumentCompressor", "pruning_runnable"]),
        ("llama_index_at2_rag", ["AT2NodePostprocessor"]),
    ],
)
def test_public_names(package: str, names: list[str]) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == names
    assert all(hasattr(module, name) for name in names)
    assert module.__file__ is not None
    folder = Path(module.__file__).parent
    assert (folder / "py.typed").exists()
    assert all(len(path.read_text().splitlines()) < 150 for path in folder.glob("*.py"))
