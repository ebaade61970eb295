"""LlamaIndex's rerank events, by which its observers follow rerankers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import NodeWithScore

from at2_rag.pruner import AT2Pruner

dispatcher = get_dispatcher(__name__)


@contextmanager
def rerank_events(
    query: str, nodes: list[NodeWithScore], *, top_n: int | None, pruner: AT2Pruner
) -> Iterator[list[NodeWithScore]]:
    """Send the start event, and the end event whatever happens in between.

    Args:
        query: The question.
        nodes: The nodes to prune.
        top_n: Most nodes to keep; None for any number.
        pruner: The pruner, which names the model.

    Yields:
        An empty list, to be filled with the kept nodes for the end event.
    """
    kept: list[NodeWithScore] = []
    dispatcher.event(
        ReRankStartEvent(
            query=query,
            nodes=nodes,
            top_n=len(nodes) if top_n is None else top_n,
            model_name=pruner.model_name,
        )
    )
    try:
        yield kept
    finally:
        dispatcher.event(ReRankEndEvent(nodes=kept))
