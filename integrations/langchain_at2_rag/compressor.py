"""The document compressor: retrieved documents in, the few that matter out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, model_validator

from at2_rag.chunks import Chunk, PruneResult, ScoredChunk
from at2_rag.default_pruner import default_pruner
from at2_rag.limits import (
    DEFAULT_MAX_OVERLAP,
    OPTIONS,
    OnUnsupported,
    Order,
    Unit,
    check_limits,
    has_limit,
)
from at2_rag.pruner import AT2Pruner

DEFAULT_TOP_N = 3


class AT2DocumentCompressor(BaseDocumentCompressor):
    """Keeps the documents that matter for the query, with `metadata["relevance_score"]` set.

    The documents returned are copies, with ids, metadata and text as they came (of the text, with
    `unit="sentence"`, what is kept); the caller's own are never written to. Where scoring failed
    and the pruner was built with `on_error="keep_all"`, or wasn't needed (`min_tokens`), all
    documents come back and none gets a score.

    Several limits must all hold. Without any, the best three documents are kept (with
    `unit="sentence"` the best three sentences of all documents).

    Attributes:
        pruner: The pruner; None for that of the default model, loaded on first use and shared
            by the process. Not part of the serialised settings.
        top_n: Keep at most this many documents, or sentences.
        max_tokens: Keep at most this many tokens, titles and separators included, by the
            pruner's token counter.
        min_score: Keep documents with at least this probability (score, where not calibrated).
        keep_mass: Keep the smallest set that holds this share of the probabilities (likewise).
        tolerance: Keep the smallest set beside which no more documents that matter are expected.
        min_tokens: Pass on documents of at most this many tokens in all as they are, unscored; of
            the limits only `max_tokens` holds then.
        order: `"score"` for best first, `"original"` for the retriever's order.
        unit: `"chunk"`, or `"sentence"`: limits choose among the sentences of all documents, and
            only those that matter are kept of a document. Its text is then what is kept, and
            `metadata["kept_spans"]` says where in the document's own text that stands: a list of
            `[start, end]`.
        protect: A regular expression; each document (or sentence) with a match is kept in any case.
        max_overlap: Drop documents (or sentences) of which this share stands in better ones that
            are kept, unless a number, a name or a negation is new; None to keep duplicates.
        on_unsupported: `"keep_best"` for one document at most, `"keep_none"` for none (but what is
            protected), where most likely none holds the answer; like `tolerance` it needs
            calibrated head weights. `"flag"` changes nothing here.
        title_key: Metadata key of the title, which is read with the text where it is a string
            that isn't blank; None to leave titles out.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    pruner: AT2Pruner | None = Field(default=None, exclude=True)
    top_n: int | None = Field(default=None, ge=1)
    max_tokens: int | None = None
    min_score: float | None = None
    keep_mass: float | None = None
    tolerance: float | None = None
    min_tokens: int | None = None
    order: Order = "score"
    unit: Unit = "chunk"
    protect: str | None = None
    max_overlap: float | None = DEFAULT_MAX_OVERLAP
    on_unsupported: OnUnsupported = "flag"
    title_key: str | None = "title"

    @model_validator(mode="after")
    def _settle_limits(self) -> Self:
        if not has_limit(self._limits()):
            self.top_n = DEFAULT_TOP_N
        check_limits(**self._limits())
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return copies of the documents that matter for the query.

        Args:
            documents: The retrieved documents; none of them is changed.
            query: The question.
            callbacks: Taken for LangChain's sake; there is nothing to report to them.

        Raises:
            ValueError: If the query is blank.
        """
        if not documents:
            return []
        pruner = self.pruner or default_pruner()
        result = pruner.prune(query, self._chunks(documents), **self._limits())
        return _kept_documents(documents, result)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do the same without blocking the event loop; see `compress_documents`."""
        if not documents:
            return []
        pruner = self.pruner
        if pruner is None:
            pruner = await asyncio.to_thread(default_pruner)
        result = await pruner.aprune(query, self._chunks(documents), **self._limits())
        return _kept_documents(documents, result)

    def _limits(self) -> dict[str, Any]:
        return {"top_k": self.top_n, **{name: getattr(self, name) for name in OPTIONS}}

    def _chunks(self, documents: Sequence[Document]) -> list[Chunk]:
        return [
            Chunk(text=document.page_content, title=self._title(document), id=document.id)
            for document in documents
        ]

    def _title(self, document: Document) -> str | None:
        title = None if self.title_key is None else document.metadata.get(self.title_key)
        return title if isinstance(title, str) and title.strip() else None


def _kept_documents(documents: Sequence[Document], result: PruneResult) -> list[Document]:
    return [_copy(documents[own.index], own, scored=result.scored) for own in result.kept]


def _copy(document: Document, kept: ScoredChunk, *, scored: bool) -> Document:
    update: dict[str, Any] = {"metadata": dict(document.metadata)}
    if scored:
        update["metadata"]["relevance_score"] = kept.relevance
    if kept.spans is not None:
        update["metadata"]["kept_spans"] = list(map(list, kept.spans))
        update["page_content"] = kept.kept_text
    return document.model_copy(update=update)
