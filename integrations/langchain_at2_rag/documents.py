"""Converts LangChain's documents to chunks, and kept chunks to copies of documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document

from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk


def as_chunk(document: Document, title_key: str | None, score_key: str | None) -> Chunk:
    """Return a document as a chunk.

    Args:
        document: The document.
        title_key: Metadata key of its title, ignored unless it is a string that isn't blank; None
            for no title.
        score_key: Metadata key of the retriever's score; None for no score.
    """
    title = None if title_key is None else document.metadata.get(title_key)
    return Chunk(
        text=document.page_content,
        title=title if isinstance(title, str) and title.strip() else None,
        id=document.id,
        retrieval_score=None if score_key is None else document.metadata.get(score_key),
    )


def kept_documents(documents: Sequence[Document], result: PruneResult) -> list[Document]:
    """Return copies of the kept documents; the caller's own aren't changed."""
    return [_copy(documents[chunk.index], chunk, result) for chunk in result.kept]


def _copy(document: Document, kept: ScoredChunk, result: PruneResult) -> Document:
    update: dict[str, Any] = {"metadata": dict(document.metadata)}
    if result.scored:
        update["metadata"]["relevance_score"] = kept.relevance
    if result.answerable is not None:
        update["metadata"]["answerable"] = result.answerable
    if kept.spans is not None:
        update["metadata"]["kept_spans"] = list(map(list, kept.spans))
        update["page_content"] = kept.kept_text
    return document.model_copy(update=update)
