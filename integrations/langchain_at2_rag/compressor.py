"""The document compressor: retrieved documents in, the few that matter out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, model_validator

from at2_rag.default_pruner import default_pruner
from at2_rag.options import (
    DEFAULT_MAX_OVERLAP,
    OPTIONS,
    IfUnanswerable,
    Order,
    Unit,
    check_limits,
    or_default,
)
from at2_rag.pruner import AT2Pruner
from at2_rag.text.chunks import Chunk, Prior
from langchain_at2_rag.documents import as_chunk, kept_documents


class AT2DocumentCompressor(BaseDocumentCompressor):
    """Keeps the documents that matter for the query, with `metadata["relevance_score"]` set.

    The documents returned are copies, with ids, metadata and text as they came (of the text, with
    `unit="sentence"`, what is kept); the caller's own are never written to. Where scoring failed
    and the pruner was built with `on_error="keep_all"`, or wasn't needed (`skip_below_tokens`), all
    documents come back and none gets a score.

    Several limits must all hold. Without any, calibrated head weights (as the default ones are)
    keep the documents that are likely to matter; with others the best three are kept (with
    `unit="sentence"` the best three sentences of all documents).

    Attributes:
        pruner: The pruner; None for that of the default model, loaded on first use and shared
            by the process. Not part of the serialised settings.
        top_n: Keep at most this many documents, or sentences.
        max_tokens: Keep at most this many tokens, titles and separators included, by the
            pruner's token counter.
        min_score: Keep documents with at least this probability (score, where not calibrated).
        top_p: Keep the smallest set that holds this share of the probabilities (likewise).
        max_missed: Keep the smallest set beside which no more documents that matter are expected.
        skip_below_tokens: Pass on documents of at most this many tokens in all as they are,
            unscored; of the limits only `max_tokens` holds then.
        order: `"score"` for best first, `"original"` for the retriever's order.
        unit: `"chunk"`, or `"sentence"`: limits choose among the sentences of all documents, and
            only those that matter are kept of a document. Its text is then what is kept, and
            `metadata["kept_spans"]` says where in the document's own text that stands: a list of
            `[start, end]`.
        protect: A regular expression; each document (or sentence) with a match is kept in any case.
        max_overlap: Drop documents (or sentences) of which this share stands in better ones that
            are kept, unless a number, a name or a negation is new; None to keep duplicates.
        if_unanswerable: `"keep_best"` for one document at most, `"keep_none"` for none (but what is
            protected), where most likely none holds the answer; like `max_missed` it needs
            calibrated head weights. `"flag"` keeps what the limits say; with calibrated weights
            `metadata["answerable"]` tells how likely it is that any document helps.
        prior: Let the retriever weigh in: `"order"` if the documents stand in its order, best
            first, `"score"` to rank them by the number in `metadata[score_key]`, `"cosine"` if
            that number is a cosine of embeddings.
        score_key: Metadata key of the retriever's score, larger is better.
        multi_hop: Ask again beside the best document, for answers that take two; None to do so
            where the best alone doesn't meet the max_missed.
        title_key: Metadata key of the title, which is read with the text where it is a string
            that isn't blank; None to leave titles out.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    pruner: AT2Pruner | None = Field(default=None, exclude=True)
    top_n: int | None = Field(default=None, ge=1)
    max_tokens: int | None = None
    min_score: float | None = None
    top_p: float | None = None
    max_missed: float | None = None
    skip_below_tokens: int | None = None
    order: Order = "score"
    unit: Unit = "chunk"
    protect: str | None = None
    max_overlap: float | None = DEFAULT_MAX_OVERLAP
    if_unanswerable: IfUnanswerable = "flag"
    prior: Prior | None = None
    score_key: str = "score"
    multi_hop: bool | None = None
    title_key: str | None = "title"

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        check_limits(**self._limits(calibrated=False))
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
        limits = self._limits(calibrated=pruner.calibrated)
        result = pruner.prune(query, self._chunks(documents), **limits)
        return kept_documents(documents, result)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do the same without blocking the event loop; see `compress_documents`."""
        if not documents:
            return []
        pruner = self.pruner
        if pruner is None:
            pruner = await asyncio.to_thread(default_pruner)
        limits = self._limits(calibrated=pruner.calibrated)
        result = await pruner.aprune(query, self._chunks(documents), **limits)
        return kept_documents(documents, result)

    def _limits(self, *, calibrated: bool) -> dict[str, Any]:
        options = {"top_k": self.top_n, **{name: getattr(self, name) for name in OPTIONS}}
        return or_default(options, calibrated=calibrated)

    def _chunks(self, documents: Sequence[Document]) -> list[Chunk]:
        score_key = self.score_key if self.prior in ("score", "cosine") else None
        return [as_chunk(document, self.title_key, score_key) for document in documents]
