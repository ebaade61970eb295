"""Asking the command for help loads neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = [
    "--help",
    "prune --help",
    "models --help",
    "models list",
    "cache info --chunk-cache .",
    "train --help",
    "eval --help",
    "eval qa --help",
]
RUN_EACH = """
import sys
from at2_rag.cli.group import main
heavy = {"torch", "transformers", "tokenizers", "tiktoken", "huggingface_hub", "gguf"}
for command in sys.argv[1:]:
    main(command.split(), prog_name="at2-rag", standalone_mode=False)
    print("AFTER", command, sorted(heavy & set(sys.modules)))
import tiktoken
print("AFTER", sorted(heavy & set(sys.modules)))
"""


def test_help_loads_neither_torch_nor_transformers() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN_EACH, *COMMANDS], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line.startswith("AFTER")]
    expected = [f"AFTER {command} []" for command in COMMANDS]
    assert lines == [*expected, "AFTER ['tiktoken']"], "the last line shows that it can fail"
