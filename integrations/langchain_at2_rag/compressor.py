"""The document compressor: retrieved documents in, the relevant ones out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from at2_rag.adapters import AdapterSettings
from at2_rag.options import AdapterOverrides
from at2_rag.pruner import AT2Pruner
from at2_rag.text.chunks import Chunk
from langchain_at2_rag.documents import as_chunk, kept_documents


class CompressorSettings(AdapterOverrides, total=False):
    """The settings of `AT2DocumentCompressor` but the pruner, for type checkers."""

    title_key: str | None
    score_key: str


class AT2DocumentCompressor(AdapterSettings, BaseDocumentCompressor):
    """Keeps the documents relevant to the query, with `metadata["relevance_score"]` set.

    Returns copies: the caller's documents are never written to, and ids, metadata and text stay as
    they are. With `unit="sentence"` the text is what is kept of it, and `metadata["kept_spans"]`
    has the ranges `[start, end]` of the original text. With calibrated head weights
    `metadata["answerable"]` is the probability that any document holds the answer. If scoring
    failed and the pruner has `on_error="keep_all"`, or wasn't needed (`skip_below_tokens`), all
    documents come back and none gets a score.

    Options are those of `at2_rag.options.PruneOptions`, with `top_n` for `top_k`; all limits must
    hold. Without any, calibrated head weights (like the default ones) keep the documents that are
    probably relevant; others keep the best three documents (or sentences).

    Attributes:
        pruner: The pruner; None for that of the default model, loaded on first use and shared by
            the process. Not part of the serialised settings.
        title_key: Metadata key of the title, which is read with the text if it is a string that
            isn't blank; None for no title.
        score_key: Metadata key of the retriever's score, larger is better; read with a `prior` of
            "score" or "cosine".
    """

    score_key: str = "score"

    if TYPE_CHECKING:

        def __init__(
            self, *, pruner: AT2Pruner | None = None, **settings: Unpack[CompressorSettings]
        ) -> None: ...

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return copies of the documents relevant to the query.

        Args:
            documents: The retrieved documents; none of them is changed.
            query: The question.
            callbacks: Part of LangChain's interface; not used.

        Raises:
            ValueError: If the query is blank.
        """
        if not documents:
            return []
        pruner = self.loaded_pruner()
        result = pruner.prune(query, self._chunks(documents), **self.overrides(pruner))
        return kept_documents(documents, result)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do as `compress_documents` without blocking the event loop."""
        if not documents:
            return []
        pruner = await self.aloaded_pruner()
        result = await pruner.aprune(query, self._chunks(documents), **self.overrides(pruner))
        return kept_documents(documents, result)

    def _chunks(self, documents: Sequence[Document]) -> list[Chunk]:
        score_key = self.score_key if self.prune_options().prior in ("score", "cosine") else None
        return [as_chunk(document, self.title_key, score_key) for document in documents]
