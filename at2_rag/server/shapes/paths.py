"""Which shape a request has, by its path and, where shapes meet, by its keys."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from at2_rag.server.shapes.cohere import COHERE_V1, COHERE_V2
from at2_rag.server.shapes.error_forms import ErrorForm
from at2_rag.server.shapes.ranking import Shape
from at2_rag.server.shapes.tei import TEI
from at2_rag.server.shapes.vllm import VLLM
from at2_rag.server.shapes.voyage import VOYAGE

RERANK_PATHS: Mapping[str, tuple[Shape, ...]] = MappingProxyType(
    {
        "/rerank": (TEI, VLLM),
        "/v1/rerank": (VOYAGE, VLLM, COHERE_V1),
        "/v2/rerank": (VLLM, COHERE_V2),
    }
)
"""Path -> its shapes; a request that has no key of another's is of the last."""


def shape_of(path: str, body: Mapping[str, Any]) -> Shape:
    """Return the shape of a request."""
    *others, last = RERANK_PATHS[path]
    return next((shape for shape in others if not shape.keys.isdisjoint(body)), last)


def error_form_of(path: str) -> ErrorForm:
    """Return how errors are written on a path before the body has been read."""
    shapes = RERANK_PATHS.get(path)
    return ErrorForm.AT2_RAG if shapes is None else shapes[-1].error_form
