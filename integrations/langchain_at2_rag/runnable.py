"""The same step for a chain: `{"query": ..., "documents": ...}` in, documents out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda

from at2_rag.errors import InputError
from at2_rag.options import DEFAULT_MAX_OVERLAP, IfUnanswerable, Order, Unit
from at2_rag.pruner import AT2Pruner
from at2_rag.text.chunks import Prior
from langchain_at2_rag.compressor import AT2DocumentCompressor


def pruning_runnable(
    pruner: AT2Pruner | None = None,
    *,
    top_n: int | None = None,
    max_tokens: int | None = None,
    min_score: float | None = None,
    top_p: float | None = None,
    max_missed: float | None = None,
    skip_below_tokens: int | None = None,
    order: Order = "score",
    unit: Unit = "chunk",
    protect: str | None = None,
    max_overlap: float | None = DEFAULT_MAX_OVERLAP,
    if_unanswerable: IfUnanswerable = "flag",
    prior: Prior | None = None,
    score_key: str = "score",
    multi_hop: bool | None = None,
    title_key: str | None = "title",
) -> Runnable[dict[str, Any], list[Document]]:
    """Return a step that prunes a chain's documents, sync and async.

        chain = RunnableParallel(query=RunnablePassthrough(), documents=retriever)
        chain = chain | pruning_runnable(top_n=3)

    The arguments mean what they mean in `AT2DocumentCompressor`.

    Raises:
        ValueError: If a limit can't hold.
    """
    compressor = AT2DocumentCompressor(
        pruner=pruner,
        top_n=top_n,
        max_tokens=max_tokens,
        min_score=min_score,
        top_p=top_p,
        max_missed=max_missed,
        skip_below_tokens=skip_below_tokens,
        order=order,
        unit=unit,
        protect=protect,
        max_overlap=max_overlap,
        if_unanswerable=if_unanswerable,
        prior=prior,
        score_key=score_key,
        multi_hop=multi_hop,
        title_key=title_key,
    )

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
