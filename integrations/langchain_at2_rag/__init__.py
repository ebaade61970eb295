"""Prune retrieved documents in LangChain.

    >>> from langchain_at2_rag import AT2DocumentCompressor, AT2Retriever

`AT2DocumentCompressor` fits wherever LangChain takes a document compressor, and is a step of a
chain and a node of a graph; `AT2Retriever` prunes what another retriever returns, and
`AT2ToolResultMiddleware` what the tools of an agent return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from langchain_at2_rag.compressor import AT2DocumentCompressor
    from langchain_at2_rag.retriever import AT2Retriever
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langchain_core":
        raise
    raise ImportError(
        "langchain_at2_rag needs langchain-core, which isn't installed; "
        'run: pip install "at2-rag[langchain]"'
    ) from error

if TYPE_CHECKING:
    from langchain_at2_rag.agents import AT2ToolResultMiddleware

__all__ = ["AT2DocumentCompressor", "AT2Retriever", "AT2ToolResultMiddleware"]


def __getattr__(name: str) -> Any:
    """Import the middleware, which needs langchain beside langchain-core, on first use."""
    if name != "AT2ToolResultMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_at2_rag.agents import AT2ToolResultMiddleware
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("langchain", "langgraph"):
            raise
        raise ImportError(
            "AT2ToolResultMiddleware needs langchain, which isn't installed; "
            'run: pip install "at2-rag[agents]"'
        ) from error
    return AT2ToolResultMiddleware


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
