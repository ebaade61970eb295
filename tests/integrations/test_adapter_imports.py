"""What the adapter packages need, and what they say if their framework is missing."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

PACKAGES = {
    "haystack_integrations.components.rankers.at2_rag": ("haystack", "haystack"),
    "langchain_at2_rag": ("langchain_core", "langchain"),
    "mcp_at2_rag": ("mcp", "mcp"),
    "llama_index_at2_rag": ("llama_index", "llama-index"),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_framework_names_the_pip_line(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework, extra = PACKAGES[package]
    importlib.import_module(package)
    for name in list(sys.modules):
        if name == package or name.startswith(f"{package}."):
            monkeypatch.delitem(sys.modules, name)
        elif name.partition(".")[0] == framework:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, framework, None)  # also where nothing has imported it yet
    with pytest.raises(ImportError, match=re.escape(f'pip install "at2-rag[{extra}]"')):
        module = importlib.import_module(package)
        getattr(module, module.__all__[0])  # some import their framework on first use


@pytest.mark.parametrize("package", PACKAGES)
def test_adapters_import_only_their_own_framework(package: str) -> None:
    [folder] = importlib.import_module(package).__path__
    sources = [path.read_text(encoding="utf-8") for path in Path(folder).glob("*.py")]
    assert sources
    for name, (framework, _) in PACKAGES.items():
        pattern = rf"(import|from) {framework}\b"
        assert name == package or not any(re.search(pattern, text) for text in sources)
