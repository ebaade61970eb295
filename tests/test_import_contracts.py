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
    "integrations/haystack_integrations",
    "integrations/langchain_at2_rag",
    "integrations/llama_index_at2_rag",
    "integrations/mcp_at2_rag",
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


PLANTED = [
    ("at2_rag/text/chunks.py", "at2_rag.pruner", "Rooms import only from rooms below"),
    ("at2_rag/training/__init__.py", "at2_rag.cli.group", "Rooms import only"),
    ("at2_rag/states/store.py", "at2_rag.readout.head_weights", "Rooms import only"),
    ("at2_rag/model/hub.py", "at2_rag.prompt.layout", "Rooms import only"),
    ("langchain_at2_rag/__init__.py", "at2_rag_evals", "Rooms import only"),
    ("at2_rag/pruner.py", "langchain_core", "The library knows no framework"),
    ("at2_rag/pruner.py", "at2_rag.server.settings", "Rooms import only"),
    ("at2_rag/report/page.py", "fastapi", "Only the server knows HTTP"),
    ("at2_rag/server/settings.py", "ray", "Only at2_rag.ray knows Ray"),
    ("at2_rag/cli/group.py", "at2_rag.ray.commands", "Rooms import only"),
    ("at2_rag/selection/select.py", "torch", "do without torch"),
    ("at2_rag/readout/head_weights.py", "transformers", "know transformers"),
    ("at2_rag_evals/tables.py", "at2_rag_evals.cli", "No cycles"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says about a copy of the packages with all of these imports added."""
    root = tmp_path_factory.mktemp("planted")
    ignore = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / Path(package).name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", root)
    for file, module, _ in PLANTED:
        with (root / file).open("a", encoding="utf-8") as source:
            source.write(f"\nimport {module}\n")
    result = lint_imports(root)
    assert result.returncode == 1
    return result.stdout


def test_contracts_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("file", "module", "contract"), PLANTED)
def test_a_planted_import_breaks_its_contract(
    broken: str, file: str, module: str, contract: str
) -> None:
    lines = broken.splitlines()
    assert any(contract in line and " BROKEN" in line for line in lines), broken
    importer = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if contract == "No cycles":  # only the cheapest cut of it is named
        assert "No cycles are allowed in at2_rag_evals." in lines
    else:
        assert f"{importer} -> {module} " in broken
