"""States and pruners that the tests of this folder share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from at2_rag.states.int8 import Int8State

from at2_rag import AT2Pruner, ChunkCache
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.chunk_states import ChunkState
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

CHUNKS = [f"Emma {number} was written in Chawton." * (1 + number % 3) for number in range(9)]


def key_of(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def state(tokens: int, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> ChunkState:
    """A state of 3 layers, 2 key heads of 4 dimensions: 160 bytes a token in float32."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(3, 2, tokens, 4, generator=generator).to(dtype)
    return ChunkState(keys, torch.randn(2, 2, tokens, 4, generator=generator).to(dtype))


def same(one: ChunkState | Int8State | None, other: ChunkState) -> bool:
    return isinstance(one, ChunkState) and all(
        ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        for ours, theirs in ((one.keys, other.keys), (one.values, other.values))
    )


def paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def pruner(cache: ChunkCache | None = None) -> AT2Pruner:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    weights = random_weights(model, tokenizer, "together", "apart")
    return AT2Pruner(LoadedModel(model, tokenizer), head_weights=weights, chunk_cache=cache)


def scores(pruner: AT2Pruner) -> list[float]:
    return [chunk.score for chunk in pruner.score("Who wrote Emma 4?", CHUNKS)]
