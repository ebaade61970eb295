"""What the examples share: passages, a BM25 index, and a small local generator."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import bm25s
import torch
from transformers import pipeline

from at2_rag.model.hub import DEFAULT_MODEL, resolve_model


def read_passages() -> list[dict[str, str]]:
    """Return the shipped passages, each with `id`, `title` and `text`."""
    lines = Path(__file__).with_name("passages.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


class BM25Index:
    """BM25 over a list of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = bm25s.BM25()
        self._index.index(bm25s.tokenize(list(texts), show_progress=False), show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the indices of the `k` best texts with their scores."""
        words = bm25s.tokenize(query, show_progress=False)
        indices, scores = self._index.retrieve(words, k=k, show_progress=False)
        return [
            (int(index), float(score)) for index, score in zip(indices[0], scores[0], strict=True)
        ]


@cache
def _pipeline() -> Any:
    folder = str(resolve_model(DEFAULT_MODEL))
    return pipeline("text-generation", model=folder, dtype=torch.bfloat16)


def generate(prompt: str) -> str:
    """Answer with the default scoring model, a chat model of 135 million parameters."""
    chat = [{"role": "user", "content": prompt}]
    output = _pipeline()(chat, max_new_tokens=48, do_sample=False)
    return str(output[0]["generated_text"][-1]["content"])
