"""Between LlamaIndex's nodes and chunks: what is scored, and what is given back."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from at2_rag.chunks import Chunk

RETRIEVAL_SCORE = "retrieval_score"


def as_chunk(node: BaseNode, title_key: str | None) -> Chunk:
    """Return what the generator will see of the node, with its title on top and only there."""
    shown = node.get_content(metadata_mode=MetadataMode.LLM)
    title = None if title_key is None else node.metadata.get(title_key)
    if isinstance(title, str) and title.strip():
        hidden = [*node.excluded_llm_metadata_keys, title_key]
        untitled = node.model_copy(update={"excluded_llm_metadata_keys": hidden})
        text = untitled.get_content(metadata_mode=MetadataMode.LLM)
        if text != shown:
            return Chunk(text=text, title=title, id=node.node_id)
    return Chunk(text=shown, id=node.node_id)


def copy_of(
    scored: NodeWithScore, score: float | None, *, keep_retrieval_score: bool
) -> NodeWithScore:
    """Return a copy with this score, or the one it came with if None.

    Args:
        scored: The caller's node, which is left alone.
        score: The pruner's score, or None where scoring failed.
        keep_retrieval_score: Note the score it came with in the copy's metadata, hidden from
            the LLM and from embeddings: metadata is part of what both are shown.
    """
    node = scored.node
    update: dict[str, Any] = {"metadata": dict(node.metadata)}
    if keep_retrieval_score:
        update["metadata"][RETRIEVAL_SCORE] = scored.score
        update["excluded_llm_metadata_keys"] = [
            *node.excluded_llm_metadata_keys,
            RETRIEVAL_SCORE,
        ]
        update["excluded_embed_metadata_keys"] = [
            *node.excluded_embed_metadata_keys,
            RETRIEVAL_SCORE,
        ]
    copied = node.model_copy(update=update)
    return scored.model_copy(
        update={"node": copied, "score": scored.score if score is None else score}
    )
