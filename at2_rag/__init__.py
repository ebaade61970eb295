"""Prune retrieved context before it reaches an LLM.

    >>> from at2_rag import AT2Pruner
    >>> pruner = AT2Pruner.from_pretrained()
    >>> result = pruner.prune("Who wrote Emma?", passages, top_k=3)

Importing this package loads neither torch nor transformers; they come in with the first use of
`AT2Pruner`, `AT2Attributor` or `ChunkCache`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from at2_rag.errors import AT2Error
from at2_rag.text.chunks import Chunk, PruneResult, ScoredChunk

if TYPE_CHECKING:
    from at2_rag.attribution import AT2Attributor
    from at2_rag.pruner import AT2Pruner
    from at2_rag.readout.head_weights import HeadWeights
    from at2_rag.states.store import ChunkCache

__version__ = "0.1.0"
__all__ = [
    "AT2Attributor",
    "AT2Error",
    "AT2Pruner",
    "Chunk",
    "HeadWeights",
    "PruneResult",
    "ScoredChunk",
    "ChunkCache",
    "__version__",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

_LAZY = {
    "AT2Attributor": "at2_rag.attribution",
    "AT2Pruner": "at2_rag.pruner",
    "HeadWeights": "at2_rag.readout.head_weights",
    "ChunkCache": "at2_rag.states.store",
}


def __getattr__(name: str) -> Any:
    """Import the names that need torch on first use."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
