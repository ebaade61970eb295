"""Asking for help, or importing an adapter, loads neither torch, transformers nor FastAPI."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = [
    "--help",
    "prune --help",
    "models list",
    "cache info",
    "cache info --chunk-cache .",
    "cache clear --yes --chunk-cache .",
    "models --help",
    "index --help",
    "train --help",
    "label --help",
    "eval --help",
    "eval qa --help",
    "eval qa --all",
    "mcp --help",
    "serve --help",
    "ray --help",
    "ray serve --help",
    "ray index --help",
    "ray collect --help",
    "ray eval --help",
]
RUN_EACH = """
import sys
from at2_rag.cli.group import main
heavy = {"torch", "transformers", "tokenizers", "tiktoken", "huggingface_hub", "gguf"}
web = {"fastapi", "starlette", "uvicorn", "prometheus_client", "ray"}
for command in sys.argv[1:]:
    main(command.split(), prog_name="at2-rag", standalone_mode=False)
    print("AFTER", command, sorted((heavy | web) & set(sys.modules)))
import langchain_at2_rag, llama_index_at2_rag
langchain_at2_rag.AT2DocumentCompressor(top_n=2), llama_index_at2_rag.AT2NodePostprocessor()
print("AFTER", "adapters", sorted(heavy & set(sys.modules) - {"tiktoken"}))
import huggingface_hub
print("AFTER", sorted(heavy & set(sys.modules) - {"tiktoken"}))
"""


def test_help_loads_neither_torch_nor_transformers() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN_EACH, *COMMANDS], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line.startswith("AFTER")]
    expected = [f"AFTER {command} []" for command in [*COMMANDS, "adapters"]]
    assert lines == [*expected, "AFTER ['huggingface_hub']"], "the last line shows that it can fail"
