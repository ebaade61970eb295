"""States and pruners that the tests of this folder share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from at2_rag import AT2Pruner, ChunkCache
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.kept_heads import KeptHeads
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

CHUNKS = [f"Emma {number} was written in Chawton." * (1 + number % 3) for number in range(9)]

ROUNDING = 1e-6
"""Of a score or a log ratio, where sources are read again in other passes of the model."""


def key_of(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def state(tokens: int, *, seed: int = 0) -> KeptHeads:
    """A state of 16 heads of 8 dimensions: 160 bytes a token."""
    generator = torch.Generator().manual_seed(seed)
    return KeptHeads.rounded(torch.randn(16, tokens, 8, generator=generator))


def same(one: KeptHeads | None, other: KeptHeads) -> bool:
    if one is None or (one.scales is None) is not (other.scales is None):
        return False
    pairs = [(one.levels, other.levels)]
    if one.scales is not None and other.scales is not None:
        pairs.append((one.scales, other.scales))
    return all(ours.dtype == theirs.dtype and torch.equal(ours, theirs) for ours, theirs in pairs)


def paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def pruner(cache: ChunkCache | None = None) -> AT2Pruner:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    weights = random_weights(model, tokenizer, "together", "apart")
    return AT2Pruner(LoadedModel(model, tokenizer), head_weights=weights, chunk_cache=cache)


def scores(pruner: AT2Pruner) -> list[float]:
    return [chunk.score for chunk in pruner.score("Who wrote Emma 4?", CHUNKS)]
