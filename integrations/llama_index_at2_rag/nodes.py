"""Converts LlamaIndex's nodes to chunks, and kept chunks to copies of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import MetadataMode, NodeWithScore

from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk

RETRIEVAL_SCORE = "retrieval_score"
KEPT_SPANS = "kept_spans"
ANSWERABLE = "answerable"


def as_chunk(retrieved: NodeWithScore, title_key: str | None, *, apart: bool = False) -> Chunk:
    """Return what the generator will see of the node, with its title on top and only there.

    Args:
        retrieved: The node, with the retriever's score.
        title_key: Metadata key of the title; None for no title.
        apart: Whether the chunk's text is the node's text alone, verbatim, and whatever is shown
            before it goes into the title, so that only the text can be trimmed.
    """
    node = retrieved.node
    text = node.get_content(metadata_mode=MetadataMode.LLM)
    title = None if title_key is None else node.metadata.get(title_key)
    title = title if isinstance(title, str) and title.strip() else None
    if title is not None:
        hidden = [*node.excluded_llm_metadata_keys, title_key]
        untitled = node.model_copy(update={"excluded_llm_metadata_keys": hidden})
        shown, text = text, untitled.get_content(metadata_mode=MetadataMode.LLM)
        title = None if text == shown else title
    if apart:
        content = node.get_content(metadata_mode=MetadataMode.NONE)
        before = text[: max(0, text.rfind(content.strip()))].strip()
        text, title = content, "\n".join(filter(None, (title, before))) or None
    return Chunk(text=text, title=title, id=node.node_id, retrieval_score=retrieved.score)


def kept_nodes(
    nodes: Sequence[NodeWithScore], result: PruneResult, *, keep_retrieval_score: bool
) -> list[NodeWithScore]:
    """Return copies of the kept nodes.

    Metadata added to them is hidden from the LLM and from embeddings.

    Args:
        nodes: The caller's nodes, which aren't changed.
        result: Their pruning. If they weren't scored copies have the retriever's scores.
        keep_retrieval_score: Whether to put the retriever's score into the metadata.
    """
    return [_copy_of(nodes[kept.index], kept, result, keep_retrieval_score) for kept in result.kept]


def _copy_of(
    retrieved: NodeWithScore, kept: ScoredChunk, result: PruneResult, keep_retrieval_score: bool
) -> NodeWithScore:
    node = retrieved.node
    added: dict[str, Any] = {RETRIEVAL_SCORE: retrieved.score} if keep_retrieval_score else {}
    if result.answerable is not None:
        added[ANSWERABLE] = result.answerable
    if kept.spans is not None:
        added[KEPT_SPANS] = list(map(list, kept.spans))
    copied = node.model_copy(
        update={
            "metadata": {**node.metadata, **added},
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *added],
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *added],
        }
    )
    if kept.spans is not None:
        copied.set_content(kept.kept_text)
    score = kept.relevance if result.scored else retrieved.score
    return retrieved.model_copy(update={"node": copied, "score": score})
