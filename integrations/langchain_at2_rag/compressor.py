"""The document compressor, and the same step for a chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableLambda

from at2_rag.adapters import AdapterSettings, OnResult, PrunerNames, with_results
from at2_rag.errors import InputError
from at2_rag.options import AdapterOverrides, PruneOptions
from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk

if TYPE_CHECKING:
    from at2_rag.pruner import AT2Pruner


class CompressorSettings(AdapterOverrides, PrunerNames, total=False):
    """The settings of `AT2DocumentCompressor` but the pruner, for type checkers."""

    title_key: str | None
    score_key: str
    on_result: OnResult | None


class AT2DocumentCompressor(AdapterSettings, BaseDocumentCompressor):
    """Keeps the documents relevant to the query, with `metadata["relevance_score"]` set.

    Returns copies: the caller's documents are never written to, and ids, metadata and text stay as
    they are. With `unit="sentence"` the text is what is kept of it, and
    `metadata["at2_kept_spans"]` has the ranges `[start, end]` of the text that was passed in. With
    calibrated head weights `metadata["at2_answerable"]` is the probability that any document holds
    the answer. If scoring failed and the pruner has `on_error="keep_all"`, or wasn't needed
    (`skip_below_tokens`), all documents come back and none gets a score.

    `relevance_score`, LangChain's key for the score of the last reranker, is always written. Under
    the keys with `at2_` there are the results of this pass alone: those of an earlier one are left
    out. A value of any other type is the caller's: it stays, ours is left out, and a warning is
    logged once.

    Options are those of `at2_rag.options.PruneOptions`, with `top_n` for `top_k`; all limits must
    hold. Without any, calibrated head weights (like the default ones) keep as many documents as are
    expected to hold 85 % of what is relevant; others keep the best three documents (or sentences).

    Attributes:
        pruner: The pruner; None to load one on first use by `model` to `on_error`, which adapters
            share. Serialised settings leave it out, and options that weren't passed.
        model: Name or folder of the scoring model; None for the default model.
        head_weights: Name of shipped head weights ("best", "balanced", "fast", ...), or a folder
            that `at2-rag train` wrote; None for "best".
        device: Where the model runs; None for CUDA where there is one, else the CPU.
        chunk_cache: Folder that keeps what was read of chunks; None for main memory.
        on_error: "keep_all" to get all back, unranked, if scoring fails; None to raise.
        title_key: Metadata key of the title, which is read with the text if it is a string that
            isn't blank; None for no title.
        score_key: Metadata key of the retriever's score, larger is better; read with a `prior` of
            "score" or "cosine".
        on_result: Called with the `PruneResult` of each call, in which chunks are your own objects:
            what was dropped, notes and timings. Serialised settings leave it out.
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
        chunks = self._chunks(documents, self.effective_options(pruner))
        result = pruner.prune(query, chunks, **self.overrides(pruner))
        self.report(result, documents)
        return _kept(documents, result)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do as `compress_documents` without blocking the event loop."""
        if not documents:
            return []
        pruner = await self.aloaded_pruner()
        chunks = self._chunks(documents, self.effective_options(pruner))
        result = await pruner.aprune(query, chunks, **self.overrides(pruner))
        self.report(result, documents)
        return _kept(documents, result)

    def _prune(self, inputs: dict[str, Any]) -> list[Document]:
        return self.compress_documents(*_parts(inputs))

    async def _aprune(self, inputs: dict[str, Any]) -> list[Document]:
        return await self.acompress_documents(*_parts(inputs))

    def _chunks(self, documents: Sequence[Document], options: PruneOptions) -> list[Chunk]:
        reads_scores = options.prior in ("score", "cosine")
        return [self._chunk(document, reads_scores=reads_scores) for document in documents]

    def _chunk(self, document: Document, *, reads_scores: bool) -> Chunk:
        metadata = document.metadata
        title = None if self.title_key is None else metadata.get(self.title_key)
        return Chunk(
            text=document.page_content,
            title=title if isinstance(title, str) and title.strip() else None,
            id=document.id,
            retrieval_score=metadata.get(self.score_key) if reads_scores else None,
        )


def pruning_runnable(
    pruner: AT2Pruner | None = None, **settings: Unpack[CompressorSettings]
) -> Runnable[dict[str, Any], list[Document]]:
    """Return a step that prunes a chain's documents, sync and async.

        chain = RunnableParallel(query=RunnablePassthrough(), documents=retriever)
        chain = chain | pruning_runnable(top_n=3)

    Args:
        pruner: As for `AT2DocumentCompressor`.
        **settings: All other settings of `AT2DocumentCompressor`.

    Raises:
        ValueError: If a setting can't be used.
    """
    compressor = AT2DocumentCompressor(pruner=pruner, **settings)
    return RunnableLambda(compressor._prune, afunc=compressor._aprune, name="at2_pruning")


def _parts(inputs: dict[str, Any]) -> tuple[Sequence[Document], str]:
    missing = [key for key in ("query", "documents") if key not in inputs]
    if missing:
        raise InputError(
            f"the input of pruning_runnable has no {' and no '.join(map(repr, missing))} "
            f"(it has: {', '.join(map(repr, inputs)) or 'nothing'}); put "
            "RunnableParallel(query=RunnablePassthrough(), documents=retriever) before it"
        )
    return inputs["documents"], inputs["query"]


def _kept(documents: Sequence[Document], result: PruneResult) -> list[Document]:
    return [_copy(documents[chunk.index], chunk, result) for chunk in result.kept]


def _copy(document: Document, kept: ScoredChunk, result: PruneResult) -> Document:
    results: dict[str, Any] = {}
    update: dict[str, Any] = {}
    if result.answerable is not None:
        results["at2_answerable"] = result.answerable
    if kept.duplicates:
        results["at2_duplicates"] = list(kept.duplicates)
    if kept.spans is not None:
        results["at2_kept_spans"] = list(map(list, kept.spans))
        update["page_content"] = kept.kept_text
    update["metadata"] = with_results(document.metadata, results)
    if result.scored:
        update["metadata"]["relevance_score"] = kept.relevance
    return document.model_copy(update=update)
