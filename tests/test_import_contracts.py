"""The import contracts in pyproject.toml hold, and each of them can fail.

Import Linter reads the code without running it, so a copy of the packages with one import added is
enough.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "at2_rag",
    "evals/at2_rag_evals",
    "integrations/langchain_at2_rag",
    "integrations/llama_index_at2_rag",
)


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(root / folder) for folder in (".", "evals", "integrations"))
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("at2_rag/text/chunks.py", "import at2_rag.pruner", "Rooms import only from rooms below"),
        ("at2_rag/training/__init__.py", "import at2_rag.cli.group", "Rooms import only"),
        ("at2_rag/states/store.py", "import at2_rag.readout.head_weights", "Rooms import only"),
        ("at2_rag/model/hub.py", "import at2_rag.prompt.layout", "Rooms import only"),
        ("integrations/langchain_at2_rag/__init__.py", "import at2_rag_evals", "Rooms import only"),
        ("at2_rag/pruner.py", "import langchain_core", "The library knows no framework"),
        ("at2_rag/selection/select.py", "import torch", "do without torch"),
        ("at2_rag/readout/head_weights.py", "import transformers", "know transformers"),
        ("evals/at2_rag_evals/tables.py", "import at2_rag_evals.cli", "No cycles"),
    ],
)
def test_a_planted_import_breaks_its_contract(
    copy: Path, file: str, line: str, contract: str
) -> None:
    source = copy / file
    source.write_text(f"{source.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    result = lint_imports(copy)
    assert result.returncode == 1
    broken = [row for row in result.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(contract in row for row in broken), result.stdout
