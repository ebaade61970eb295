"""What the adapter packages need, and what they say if their framework is missing."""

from __future__ import annotations

import subprocess
import sys

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
def test_adapters_need_only_their_own_framework(package: str) -> None:
    [other] = [framework for name, (framework, _) in PACKAGES.items() if name != package]
    command = [sys.executable, "-c", BLOCKED, package, other]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
