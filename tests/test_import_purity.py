"""Asking the command for help loads neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest


def heavy_modules(*arguments: str, prelude: str = "") -> list[str]:
    """The heavy modules loaded once the command has run, in a process of its own."""
    code = f"""
import sys
{prelude}
from at2_rag.cli.group import main
try:
    main(sys.argv[1:], prog_name="at2-rag")
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "transformers", "tokenizers", "tiktoken", "huggingface_hub", "gguf"}}
print("HEAVY", *sorted(heavy & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("prune", "--help"),
        ("models", "--help"),
        ("models", "list"),
        ("cache", "info", "--chunk-cache", "."),
        ("train", "--help"),
        ("eval", "--help"),
        ("eval", "qa", "--help"),
    ],
)
def test_help_loads_neither_torch_nor_transformers(arguments: tuple[str, ...]) -> None:
    assert heavy_modules(*arguments) == []


def test_the_test_of_import_purity_can_fail() -> None:
    assert {"torch", "transformers"} <= set(
        heavy_modules("--help", prelude="import torch, transformers")
    )
