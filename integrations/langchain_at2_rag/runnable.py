"""The same step for a chain: `{"query": ..., "documents": ...}` in, documents out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda

from at2_rag.errors import InputError
from at2_rag.pruner import AT2Pruner
from langchain_at2_rag.compressor import AT2DocumentCompressor, CompressorSettings


def pruning_runnable(
    pruner: AT2Pruner | None = None, **settings: Unpack[CompressorSettings]
) -> Runnable[dict[str, Any], list[Document]]:
    """Return a step that prunes a chain's documents, sync and async.

        chain = RunnableParallel(query=RunnablePassthrough(), documents=retriever)
        chain = chain | pruning_runnable(top_n=3)

    Args:
        pruner: As for `AT2DocumentCompressor`.
        **settings: All other settings of `AT2DocumentCompressor`.

    Raises:
        ValueError: If a setting can't be used.
    """
    compressor = AT2DocumentCompressor(pruner=pruner, **settings)

    def prune(inputs: dict[str, Any]) -> list[Document]:
        return compressor.compress_documents(*_parts(inputs))

    async def aprune(inputs: dict[str, Any]) -> list[Document]:
        return await compressor.acompress_documents(*_parts(inputs))

    return RunnableLambda(prune, afunc=aprune, name="at2_pruning")


def _parts(inputs: dict[str, Any]) -> tuple[Sequence[Document], str]:
    missing = [key for key in ("query", "documents") if key not in inputs]
    if missing:
        raise InputError(
            f"the input of pruning_runnable has no {' and no '.join(map(repr, missing))} "
            f"(it has: {', '.join(map(repr, inputs)) or 'nothing'}); put "
            "RunnableParallel(query=RunnablePassthrough(), documents=retriever) before it"
        )
    return inputs["documents"], inputs["query"]
