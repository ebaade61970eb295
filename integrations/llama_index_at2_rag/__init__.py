"""Prune retrieved nodes in LlamaIndex.

    >>> from llama_index_at2_rag import AT2NodePostprocessor

`AT2NodePostprocessor` goes into the `node_postprocessors` of a query engine.
"""

from __future__ import annotations

try:
    from llama_index_at2_rag.postprocessor import AT2NodePostprocessor
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "llama_index":
        raise
    raise ImportError(
        "llama_index_at2_rag needs llama-index-core, which isn't installed; "
        'run: pip install "at2-rag[llama-index]"'
    ) from error

__all__ = ["AT2NodePostprocessor"]
