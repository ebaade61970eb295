"""Between LlamaIndex's nodes and chunks: what is scored, and what is given back."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from at2_rag.chunks import Chunk, ScoredChunk, join_spans

RETRIEVAL_SCORE = "retrieval_score"
KEPT_SPANS = "kept_spans"


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
    given: NodeWithScore, kept: ScoredChunk, *, scored: bool, keep_retrieval_score: bool
) -> NodeWithScore:
    """Return a copy of a node that is kept.

    Args:
        given: The caller's node, which is left alone.
        kept: What is kept of it.
        scored: Whether its score is the pruner's; else the copy has the one it came with.
        keep_retrieval_score: Note the score it came with in the copy's metadata, hidden from
            the LLM and from embeddings: metadata is part of what both are shown.
    """
    node = given.node
    added: dict[str, Any] = {RETRIEVAL_SCORE: given.score} if keep_retrieval_score else {}
    spans = _own_spans(node, kept)
    if spans is not None:
        added[KEPT_SPANS] = list(map(list, spans))
    copied = node.model_copy(
        update={
            "metadata": {**node.metadata, **added},
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *added],
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *added],
        }
    )
    if spans is not None:
        own = node.get_content(metadata_mode=MetadataMode.NONE)
        copied.set_content(join_spans(own, spans, kept.ellipsis))
    score = kept.score if scored else given.score
    return given.model_copy(update={"node": copied, "score": score})


def _own_spans(node: BaseNode, kept: ScoredChunk) -> tuple[tuple[int, int], ...] | None:
    """Return what is kept of a node's own text, None for all of it.

    What was read has the metadata before it, or whatever the node's template puts there; where the
    own text isn't in it to the letter, the node is kept whole.
    """
    own = node.get_content(metadata_mode=MetadataMode.NONE)
    offset = kept.text.rfind(own)
    if kept.spans is None or not own or offset < 0:
        return None
    spans = []
    for start, end in kept.spans:
        first, last = max(0, start - offset), min(len(own), end - offset)
        if own[first:last].strip():
            spans.append((first + len(own[first:last]) - len(own[first:last].lstrip()), last))
    return tuple(spans)
