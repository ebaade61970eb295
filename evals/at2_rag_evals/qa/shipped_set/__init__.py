"""A small question-answering set of invented facts that comes with the package."""

from __future__ import annotations

from pathlib import Path

ITEMS = Path(__file__).with_name("items.jsonl")
"""The file of items, in the form that `at2_rag.data.examples.read_examples` reads."""
