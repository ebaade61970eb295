"""Between LlamaIndex's nodes and chunks: what is scored, and what is given back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import MetadataMode, NodeWithScore

from at2_rag.text.chunks import Chunk, PruneResult, ScoredChunk

RETRIEVAL_SCORE = "retrieval_score"
KEPT_SPANS = "kept_spans"
SUPPORTED = "answerable"


def as_chunk(given: NodeWithScore, title_key: str | None, *, apart: bool = False) -> Chunk:
    """Return what the generator will see of the node, with its title on top and only there.

    Args:
        given: The node, with the retriever's score.
        title_key: Metadata key of the title; None for none.
        apart: Whether the node's own text is to be the chunk's text, to the letter, and whatever
            is shown before it part of the title, so that the text alone can be cut.
    """
    node = given.node
    text = node.get_content(metadata_mode=MetadataMode.LLM)
    title = None if title_key is None else node.metadata.get(title_key)
    title = title if isinstance(title, str) and title.strip() else None
    if title is not None:
        hidden = [*node.excluded_llm_metadata_keys, title_key]
        untitled = node.model_copy(update={"excluded_llm_metadata_keys": hidden})
        shown, text = text, untitled.get_content(metadata_mode=MetadataMode.LLM)
        title = None if text == shown else title
    if apart:
        own = node.get_content(metadata_mode=MetadataMode.NONE)
        before = text[: max(0, text.rfind(own.strip()))].strip()
        text, title = own, "\n".join(filter(None, (title, before))) or None
    return Chunk(text=text, title=title, id=node.node_id, retrieval_score=given.score)


def kept_nodes(
    nodes: Sequence[NodeWithScore], result: PruneResult, *, keep_retrieval_score: bool
) -> list[NodeWithScore]:
    """Return copies of the nodes that are kept.

    What is added to their metadata is hidden from the LLM and from embeddings, since metadata is
    part of what both are shown.

    Args:
        nodes: The caller's nodes, which are left alone.
        result: What is kept of them. Where they weren't scored copies have the scores they came
            with.
        keep_retrieval_score: Note the score a node came with in its copy's metadata.
    """
    return [_copy_of(nodes[kept.index], kept, result, keep_retrieval_score) for kept in result.kept]


def _copy_of(
    given: NodeWithScore, kept: ScoredChunk, result: PruneResult, keep_retrieval_score: bool
) -> NodeWithScore:
    node = given.node
    added: dict[str, Any] = {RETRIEVAL_SCORE: given.score} if keep_retrieval_score else {}
    if result.answerable is not None:
        added[SUPPORTED] = result.answerable
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
    score = kept.relevance if result.scored else given.score
    return given.model_copy(update={"node": copied, "score": score})
