"""The layers of docs/architecture.md hold for every import, and this test can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.import_layers import FOLDERS, LAYERS, read_imports, violations

ROOT = Path(__file__).parents[1]


def test_every_import_keeps_to_the_layers() -> None:
    assert violations(ROOT) == []


def test_the_layers_name_only_modules_that_are_there() -> None:
    modules = {module.removeprefix("at2_rag.") for module in read_imports(ROOT)}
    placed = [module for layer in LAYERS.values() for line in layer.lines for module in line]
    assert set(placed) <= modules
    assert len(placed) == len(set(placed))


def test_imports_of_every_kind_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "at2_rag"
    (folder / "training").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "training" / "__init__.py").write_text("from . import fit\n")
    (folder / "training" / "fit.py").write_text(
        "import torch.nn as nn, json\n"
        "from typing import TYPE_CHECKING\n"
        "from .. import chunks\n"
        "from ..errors import (\n    AT2Error,\n    InputError as Wrong,\n)\n"
        "try:\n    import scipy\nexcept ImportError:\n    from at2_rag import features\n"
        "if TYPE_CHECKING:\n    import tokenizers\n"
        "class A:\n    import a\n    def method(self):\n        import b\n"
        "async def f():\n    if True:\n        from c import d\n"
    )
    imports = read_imports(tmp_path)
    assert [found.name for found in imports["at2_rag.training"]] == ["at2_rag.training.fit"]
    assert {(found.name, found.at_once) for found in imports["at2_rag.training.fit"]} == {
        ("torch.nn", True),
        ("json", True),
        ("typing.TYPE_CHECKING", True),
        ("at2_rag.chunks", True),
        ("at2_rag.errors.AT2Error", True),
        ("at2_rag.errors.InputError", True),
        ("scipy", True),
        ("at2_rag.features", True),
        ("tokenizers", False),
        ("a", True),
        ("b", False),
        ("c.d", False),
    }
    first = imports["at2_rag.training.fit"][0]
    assert first.place == "at2_rag/training/fit.py:1"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project whose modules are all there and import nothing."""
    names = [module for layer in LAYERS.values() for line in layer.lines for module in line]
    for name in names:
        path = tmp_path / "at2_rag" / f"{name.replace('.', '/')}.py"
        if name == "training":
            path = tmp_path / "at2_rag" / "training" / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    for folder in FOLDERS.values():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "evals/at2_rag_evals/cli.py").write_text("")
    (tmp_path / "evals/at2_rag_evals/command.py").write_text("")
    (tmp_path / "evals/at2_rag_evals/qa/pruners").mkdir(parents=True)
    (tmp_path / "integrations/langchain_at2_rag/compressor.py").write_text("")
    assert violations(tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("path", "code", "part"),
    [
        ("at2_rag/prompt.py", "from at2_rag.pruner import AT2Pruner", "composition is not below"),
        ("at2_rag/prompt.py", "from .pruner import AT2Pruner", "composition is not below"),
        ("at2_rag/prompt.py", "from . import pruner", "composition is not below"),
        ("at2_rag/prompt.py", "def f():\n import at2_rag.pruner", "prompt.py:2: at2_rag.prompt"),
        ("at2_rag/prompt.py", "from at2_rag import AT2Pruner", "the module that defines it"),
        ("at2_rag/attention.py", "import at2_rag.scoring_model", "reading is not below reading"),
        ("at2_rag/features.py", "import at2_rag.head_weights", "reading is not below reading"),
        ("at2_rag/features.py", "import at2_rag.chunk_states", "reading is not below reading"),
        ("at2_rag/chunks.py", "import at2_rag.selection", "leaves is not below values"),
        ("at2_rag/limits.py", "import at2_rag.token_counting", "leaves is not below leaves"),
        ("at2_rag/model_hub.py", "import at2_rag.scoring_model", "reading is not below model"),
        ("at2_rag/pruner.py", "import at2_rag.training.fit", "training is not below composition"),
        ("at2_rag/pruner.py", "def f():\n import at2_rag.cli", "commands is not below composition"),
        ("at2_rag/training/fit.py", "import at2_rag.pruner", "composition is not below training"),
        ("at2_rag/training/fit.py", "from .trainer import a", "training is not below training"),
        ("at2_rag/passage_files.py", "import at2_rag.pruner", "composition is not below console"),
        ("at2_rag/pruner.py", "def f():\n import at2_rag_evals", "no adapter and no eval"),
        ("at2_rag/default_pruner.py", "import langchain_at2_rag", "no adapter and no eval"),
        ("at2_rag/features.py", "from langchain_core import x", "only langchain_at2_rag knows"),
        ("at2_rag/pruner.py", "def f():\n import llama_index.core", "only llama_index_at2_rag"),
        ("at2_rag/scoring_model.py", "from transformers.masking_utils import x", "only attention"),
        ("at2_rag/scoring_model.py", "from transformers import AttentionInterface", "only attent"),
        ("at2_rag/pruner.py", "def f():\n from huggingface_hub import x", "only model_hub"),
        ("at2_rag/model_cache.py", "import subprocess", "only model_hub"),
        ("at2_rag/token_counting.py", "import urllib.request", "only model_hub"),
        ("at2_rag/selection.py", "from scipy import stats", "scipy is for training"),
        (
            "at2_rag/cli.py",
            "import torch",
            "importing at2_rag.cli loads torch: at2_rag.cli > torch",
        ),
        ("at2_rag/cli.py", "from at2_rag.pruner import A", "at2_rag.cli > at2_rag.pruner > torch"),
        ("at2_rag/cli.py", "import at2_rag.training.fit", "> at2_rag.training.fit > tokenizers"),
        ("at2_rag/cli.py", "import langchain_at2_rag.runnable", "> langchain_at2_rag > tiktoken"),
        ("at2_rag/training/cli.py", "from .fit import f", "importing at2_rag.training.cli loads"),
        ("at2_rag/chunks.py", "from transformers import x", "importing at2_rag.chunks loads"),
        ("at2_rag/__init__.py", "from at2_rag.pruner import A", "importing at2_rag loads torch"),
        ("at2_rag/__init__.py", "from at2_rag.cli import A", "not for the package itself"),
        ("at2_rag/new_module.py", "", "at2_rag.new_module has no place in the layers"),
        (
            "integrations/langchain_at2_rag/compressor.py",
            "from at2_rag.chunk_states import x",
            "adapters use the pruner's public surface",
        ),
        (
            "integrations/langchain_at2_rag/compressor.py",
            "import llama_index_at2_rag",
            "don't know of each other",
        ),
        ("evals/at2_rag_evals/command.py", "import langchain_at2_rag", "don't know of each other"),
        ("evals/at2_rag_evals/command.py", "from at2_rag import attention", "not for the evals"),
        ("evals/at2_rag_evals/command.py", "import requests", "only model_hub"),
        ("evals/at2_rag_evals/command.py", "import langchain_core", "only langchain_at2_rag knows"),
        (
            "evals/at2_rag_evals/qa/pruners/langchain_filter.py",
            "import llama_index.core",
            "only llama_index_at2_rag knows",
        ),
        ("evals/at2_rag_evals/cli.py", "import at2_rag_evals.command", "at2_rag_evals.cli loads"),
    ],
)
def test_the_test_of_layers_can_fail(tree: Path, path: str, code: str, part: str) -> None:
    (tree / "at2_rag/pruner.py").write_text("import torch\n")
    (tree / "at2_rag/training/fit.py").write_text("import tokenizers\n")
    (tree / "integrations/langchain_at2_rag/__init__.py").write_text("import tiktoken\n")
    (tree / "evals/at2_rag_evals/command.py").write_text("import bm25s, torch\n")
    assert violations(tree) == []
    (tree / path).write_text(code + "\n")
    found = violations(tree)
    assert any(part in sentence for sentence in found), found
    (tree / path).unlink()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("at2_rag/cli.py", "def f():\n from at2_rag.pruner import AT2Pruner"),
        ("at2_rag/cli.py", "if TYPE_CHECKING:\n from at2_rag.pruner import AT2Pruner"),
        ("at2_rag/pruner.py", "import at2_rag.chunk_states, at2_rag.model_hub, torch"),
        ("at2_rag/model_hub.py", "import subprocess\ndef f():\n import huggingface_hub"),
        ("at2_rag/attention.py", "from transformers import AttentionInterface"),
        ("at2_rag/model_folder.py", "from urllib.parse import urlsplit"),
        ("at2_rag/training/cli.py", "from at2_rag.training.trainer import train\nimport scipy"),
        ("at2_rag/training/cli.py", "def f():\n import torch, at2_rag.pruner"),
        ("evals/at2_rag_evals/command.py", "import subprocess, at2_rag.pruner, at2_rag"),
        ("integrations/langchain_at2_rag/compressor.py", "import langchain_core, at2_rag.pruner"),
        ("evals/at2_rag_evals/qa/pruners/langchain_filter.py", "import langchain_core"),
    ],
)
def test_what_is_allowed_passes(tree: Path, path: str, code: str) -> None:
    (tree / path).write_text(code + "\n")
    assert violations(tree) == []
