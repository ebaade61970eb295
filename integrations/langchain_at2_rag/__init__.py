"""Prune retrieved documents in LangChain.

    >>> from langchain_at2_rag import AT2DocumentCompressor, pruning_runnable

`AT2DocumentCompressor` fits wherever LangChain takes a document compressor;
`pruning_runnable` is the same step for a chain.
"""

from __future__ import annotations

try:
    from langchain_at2_rag.compressor import AT2DocumentCompressor, pruning_runnable
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langchain_core":
        raise
    raise ImportError(
        "langchain_at2_rag needs langchain-core, which isn't installed; "
        'run: pip install "at2-rag[langchain]"'
    ) from error

__all__ = ["AT2DocumentCompressor", "pruning_runnable"]
