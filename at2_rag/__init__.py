"""Prune retrieved context before it reaches an LLM.

    >>> from at2_rag import AT2Pruner
    >>> pruner = AT2Pruner.from_pretrained()
    >>> result = pruner.prune("Who wrote Emma?", passages, top_k=3)

Importing this package loads neither torch nor transformers; they come in with the first use of
`AT2Pruner`, `AT2Attributor`, `LoadedModel`, `HeadWeights` or `ChunkCache`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from at2_rag.errors import (
    AT2Error,
    ChunkTypeError,
    DataError,
    HeadWeightsError,
    HeadWeightsMismatchError,
    HeadWeightsNotFoundError,
    InputError,
    ModelError,
    ModelNotFoundError,
    PromptTooLongError,
    PrunerBusyError,
    ScoringError,
    StorageError,
    TokenCounterError,
    UnsupportedModelError,
)
from at2_rag.options import PruneOptions, PruneOverrides
from at2_rag.results import (
    Attribution,
    BreakEven,
    CitedAnswer,
    CitedSentence,
    PruneResult,
    ScoredChunk,
    ScoredSentence,
)
from at2_rag.text.chunks import Chunk, ChunkLike

if TYPE_CHECKING:
    from at2_rag.attribution import AT2Attributor
    from at2_rag.model.loading import LoadedModel
    from at2_rag.pruner import AT2Pruner
    from at2_rag.readout.head_weights import HeadWeights
    from at2_rag.states.files import FolderSize, StateCounts
    from at2_rag.states.store import ChunkCache

__version__ = "0.1.0"
__all__ = [
    "AT2Attributor",
    "AT2Error",
    "AT2Pruner",
    "Attribution",
    "BreakEven",
    "Chunk",
    "ChunkCache",
    "ChunkLike",
    "ChunkTypeError",
    "CitedAnswer",
    "CitedSentence",
    "DataError",
    "FolderSize",
    "HeadWeights",
    "HeadWeightsError",
    "HeadWeightsMismatchError",
    "HeadWeightsNotFoundError",
    "InputError",
    "LoadedModel",
    "ModelError",
    "ModelNotFoundError",
    "PromptTooLongError",
    "PruneOptions",
    "PruneOverrides",
    "PruneResult",
    "PrunerBusyError",
    "ScoredChunk",
    "ScoredSentence",
    "ScoringError",
    "StateCounts",
    "StorageError",
    "TokenCounterError",
    "UnsupportedModelError",
    "__version__",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

_LAZY = {
    "AT2Attributor": "at2_rag.attribution",
    "LoadedModel": "at2_rag.model.loading",
    "AT2Pruner": "at2_rag.pruner",
    "HeadWeights": "at2_rag.readout.head_weights",
    "ChunkCache": "at2_rag.states.store",
    "FolderSize": "at2_rag.states.files",
    "StateCounts": "at2_rag.states.files",
}


def __getattr__(name: str) -> Any:
    """Import the names that need torch on first use."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
