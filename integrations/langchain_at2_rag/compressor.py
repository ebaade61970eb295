"""The document compressor, which is a step of a chain and a node of a graph as well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Unpack

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
    Callbacks,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, model_validator

from at2_rag.adapters import (
    AdapterSettings,
    OnResult,
    PrunerNames,
    result_entries,
    warn_of_collision,
    with_results,
)
from at2_rag.errors import InputError, PrunerBusyError, brief
from at2_rag.options import AdapterOverrides
from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk, ChunkLike
from langchain_at2_rag.configurable import Configurable
from langchain_at2_rag.messages import questions_of

if TYPE_CHECKING:
    from at2_rag.pruner import AT2Pruner
    from at2_rag.pruning.history import Turn
    from at2_rag.pruning.request import BatchRequest

    _Question: TypeAlias = tuple[str, list[Document], Sequence[Turn]]
    """A query, the documents that were retrieved for it, and the turns before it."""

RESULT_EVENT = "at2_pruned"
"""Name of the custom event that callback handlers get of each pruning."""

_RELEVANCE = "relevance_score"


class CompressorSettings(AdapterOverrides, PrunerNames, total=False):
    """The settings of `AT2DocumentCompressor` but the pruner, for type checkers."""

    name: str | None
    title_key: str | None
    score_key: str
    metadata_prefix: str
    query_key: str
    documents_key: str
    history_key: str | None
    output_key: str | None
    dropped_key: str | None
    on_result: OnResult | None


class AT2DocumentCompressor(
    Configurable, AdapterSettings, RunnableSerializable[Any, Any], BaseDocumentCompressor
):
    """Keeps the documents relevant to the query, with `metadata["relevance_score"]` set.

    It goes wherever LangChain takes a document compressor. It is a step of a chain, too, whose
    input has the query and the documents, and with `output_key` a node of a graph:

        RunnableParallel(query=RunnablePassthrough(), documents=retriever)
        | AT2DocumentCompressor(top_n=3)

        graph.add_node("prune", AT2DocumentCompressor(query_key="question", output_key="documents"))

    Returns copies: the caller's documents are never written to, and ids, metadata and text stay as
    they are. With `unit="sentence"` the text is what is kept of it, and
    `metadata["at2_kept_spans"]` has the ranges `[start, end]` of the text that was passed in. With
    calibrated head weights `metadata["at2_answerable"]` is the probability that any document holds
    the answer. If scoring failed and the pruner has `on_error="keep_all"`, or wasn't needed
    (`skip_below_tokens`), all documents come back and none gets a score.

    A number or None under `relevance_score`, LangChain's key for the score of the last reranker, is
    replaced. Under the keys with the prefix there are the results of this pass alone: those of an
    earlier one are left out. A value of any other type is the caller's: it stays, ours is left out,
    and a warning is logged once.

    Options are those of `at2_rag.options.PruneOptions`, with `top_n` for `top_k`; all limits must
    hold. Without any, calibrated head weights (like the default ones) keep documents that are at
    least a twentieth as likely to be relevant as the best one, and never fewer than the best
    35 %; others keep the best three documents (or sentences).
    A call overrides settings: `compressor.invoke(inputs, top_n=1)`, or by `configurable_fields`.

    Callback handlers get a run of the compressor, and in it the custom event `at2_pruned` with what
    was kept and dropped, tokens, timings and notes.

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
        metadata_prefix: What the metadata keys that we write begin with.
        query_key: Where the query is in a chain's input or a graph's state.
        documents_key: Where the documents are in it.
        history_key: Where the conversation is in it, as messages or the user's questions; a query
            that refers to the question before it ("who wrote it?") is read after that. None for
            none.
        output_key: Return a mapping with the kept documents under this key, which is an update of a
            graph's state; None for the documents alone.
        dropped_key: Where this mapping has the documents that were dropped; None to leave them out.
        on_result: Called with the `PruneResult` of each call, in which chunks are your own objects:
            what was dropped, notes and timings. Serialised settings leave it out.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    score_key: str = "score"
    query_key: str = "query"
    documents_key: str = "documents"
    history_key: str | None = None
    output_key: str | None = None
    dropped_key: str | None = None

    if TYPE_CHECKING:

        def __init__(
            self, *, pruner: AT2Pruner | None = None, **settings: Unpack[CompressorSettings]
        ) -> None: ...

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.dropped_key is not None and self.output_key in (None, self.dropped_key):
            raise InputError(
                f"dropped_key is {self.dropped_key!r} and output_key {self.output_key!r}; pass an "
                "output_key for the documents that are kept"
            )
        keys = [self.query_key, self.documents_key, self.history_key]
        if len({*keys}) < len(keys):
            raise InputError(
                "query_key, documents_key and history_key are "
                f"{', '.join(map(repr, keys))}; pass different ones"
            )
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return copies of the documents relevant to the query.

        Args:
            documents: The retrieved documents; none of them is changed.
            query: The question.
            callbacks: LangChain's handlers, which get a run of the compressor.

        Raises:
            InputError: If the query is blank or no string, or what should be a document isn't.
        """
        return self._kept(self.invoke(self._inputs(documents, query), {"callbacks": callbacks}))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do as `compress_documents` without blocking the event loop."""
        inputs = self._inputs(documents, query)
        return self._kept(await self.ainvoke(inputs, {"callbacks": callbacks}))

    def _inputs(self, documents: Sequence[Document], query: str) -> dict[str, Any]:
        inputs: dict[str, Any] = {self.query_key: query, self.documents_key: documents}
        if self.history_key is not None:
            inputs[self.history_key] = []
        return inputs

    def rerank(
        self,
        documents: Sequence[str | Document | Mapping[str, Any]],
        query: str,
        *,
        rank_fields: Sequence[str] | None = None,
        top_n: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rank documents without pruning them, as LangChain's rerankers do.

        Args:
            documents: Documents, texts, or mappings.
            query: The question.
            rank_fields: Keys of mappings whose values are read; None for all.
            top_n: How many to return; None for all.

        Returns:
            The `index` and the `relevance_score` of each, best first.

        Raises:
            InputError: As in `compress_documents`.
        """
        if isinstance(documents, str | Document | Mapping):
            raise InputError(f"documents is {_kind(documents)}; pass a list of documents")
        if top_n is not None and top_n < 1:
            raise InputError(f"top_n is {top_n}; pass at least 1, or None for all")
        chunks: list[ChunkLike] = []
        for document in documents:
            if isinstance(document, Mapping):
                keys = document if rank_fields is None else rank_fields
                document = "\n".join(f"{key}: {document[key]}" for key in keys if key in document)
            chunks.append(self._chunk(document) if isinstance(document, Document) else document)
        if not chunks:
            return []
        scored = self.loaded_pruner().score(query, chunks)
        ranked = sorted(scored, key=lambda chunk: -chunk.score)[:top_n]
        return [{"index": one.index, "relevance_score": one.relevance} for one in ranked]

    def _kept(self, output: Any) -> list[Document]:
        kept: list[Document] = output if self.output_key is None else output[self.output_key]
        return kept

    def invoke(self, input: Any, config: RunnableConfig | None = None, **settings: Any) -> Any:
        """Prune the documents of a chain's input or a graph's state.

        Args:
            input: A mapping or an object with the query and the documents.
            config: LangChain's.
            **settings: Settings for this call.

        Returns:
            The documents that are kept; with an `output_key` a mapping that has them there.

        Raises:
            InputError: As in `compress_documents`; or if the input has no such keys, or a setting
                can't be used.
        """
        step = self.with_settings(**settings) if settings else self
        return step._call_with_config(step._invoke, input, config)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **settings: Any
    ) -> Any:
        """Do as `invoke` without blocking the event loop."""
        step = self.with_settings(**settings) if settings else self
        return await step._acall_with_config(step._ainvoke, input, config)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **settings: Any,
    ) -> list[Any]:
        """Do as `invoke` for several inputs, which are read in the same passes of the model."""
        step = self.with_settings(**settings) if settings else self
        return step._batch_with_config(
            step._batch, inputs, config, return_exceptions=return_exceptions
        )

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **settings: Any,
    ) -> list[Any]:
        """Do as `batch` without blocking the event loop."""
        step = self.with_settings(**settings) if settings else self
        return await step._abatch_with_config(
            step._abatch, inputs, config, return_exceptions=return_exceptions
        )

    def _invoke(self, state: Any, run_manager: CallbackManagerForChainRun) -> Any:
        question = self._question(state)
        return self._finished(question, self._results([question])[0], run_manager)

    async def _ainvoke(self, state: Any, run_manager: AsyncCallbackManagerForChainRun) -> Any:
        question = self._question(state)
        return await self._afinished(question, (await self._aresults([question]))[0], run_manager)

    def _batch(self, states: list[Any], run_manager: list[CallbackManagerForChainRun]) -> list[Any]:
        """Return an output or an error for each input."""
        questions = self._questions(states)
        results = iter(self._results_or_errors(list(questions.values())))
        outputs: list[Any] = []
        for index, (state, run) in enumerate(zip(states, run_manager, strict=True)):
            try:
                question = questions.get(index) or self._question(state)
                outputs.append(self._finished(question, _result(next(results)), run))
            except Exception as error:
                outputs.append(error)
        return outputs

    async def _abatch(
        self, states: list[Any], run_manager: list[AsyncCallbackManagerForChainRun]
    ) -> list[Any]:
        questions = self._questions(states)
        results = iter(await self._aresults_or_errors(list(questions.values())))
        outputs: list[Any] = []
        for index, (state, run) in enumerate(zip(states, run_manager, strict=True)):
            try:
                question = questions.get(index) or self._question(state)
                outputs.append(await self._afinished(question, _result(next(results)), run))
            except Exception as error:
                outputs.append(error)
        return outputs

    def _questions(self, states: Sequence[Any]) -> dict[int, _Question]:
        """Return the questions of usable inputs, by the inputs' indices."""
        questions = {}
        for index, state in enumerate(states):
            with contextlib.suppress(Exception):  # which is raised again in its place
                questions[index] = self._question(state)
        return questions

    def _results_or_errors(
        self, questions: Sequence[_Question]
    ) -> list[PruneResult | Exception | None]:
        """Read questions in the same passes; each by itself where that fails."""
        try:
            return [*self._results(questions)]
        except Exception as error:
            if len(questions) == 1 or isinstance(error, PrunerBusyError):
                return [error for _ in questions]
        return [self._results_or_errors([question])[0] for question in questions]

    async def _aresults_or_errors(
        self, questions: Sequence[_Question]
    ) -> list[PruneResult | Exception | None]:
        try:
            return [*(await self._aresults(questions))]
        except Exception as error:
            if len(questions) == 1 or isinstance(error, PrunerBusyError):
                return [error for _ in questions]
        return [(await self._aresults_or_errors([question]))[0] for question in questions]

    def _results(self, questions: Sequence[_Question]) -> list[PruneResult | None]:
        """Return the results of pruning; None, without a model, where there is no document."""
        if not any(documents for _, documents, _ in questions):
            return [None for _ in questions]
        pruner = self.loaded_pruner()
        requests = self._requests(questions, pruner)
        return [*pruner.prune_batch(requests, **self.overrides(pruner))]

    async def _aresults(self, questions: Sequence[_Question]) -> list[PruneResult | None]:
        if not any(documents for _, documents, _ in questions):
            return [None for _ in questions]
        pruner = await self.aloaded_pruner()
        requests = self._requests(questions, pruner)
        return [*(await pruner.aprune_batch(requests, **self.overrides(pruner)))]

    def _finished(
        self, question: _Question, result: PruneResult | None, run: CallbackManagerForChainRun
    ) -> Any:
        """Report a result, and return the output."""
        if result is not None:
            self.report(result, question[1])
            config: RunnableConfig = {"callbacks": run.get_child()}
            dispatch_custom_event(RESULT_EVENT, _summary(result), config=config)
        return self._output(question, result)

    async def _afinished(
        self, question: _Question, result: PruneResult | None, run: AsyncCallbackManagerForChainRun
    ) -> Any:
        if result is not None:
            self.report(result, question[1])
            config: RunnableConfig = {"callbacks": run.get_child()}
            await adispatch_custom_event(RESULT_EVENT, _summary(result), config=config)
        return self._output(question, result)

    def _question(self, state: Any) -> _Question:
        """Return what a chain's input or a graph's state has."""
        keys = [self.query_key, self.documents_key]
        if self.history_key is not None:
            keys.append(self.history_key)
        values = state if isinstance(state, Mapping) else _attributes(state, keys)
        if missing := [key for key in keys if key not in values]:
            names = ", ".join(map(repr, values)) or "none of what is needed"
            raise InputError(
                f"the input, a {type(state).__name__}, has no {' and no '.join(map(repr, missing))}"
                f" (it has: {names}); pass query_key and "
                "documents_key, or put RunnableParallel(query=RunnablePassthrough(), "
                "documents=retriever) before the compressor"
            )
        query, documents, *history = (values[key] for key in keys)
        if not isinstance(query, str):
            raise InputError(f"{self.query_key} is {_kind(query)}; pass the question, a string")
        turns = questions_of(history[0], str(self.history_key)) if history else ()
        return query, _documents(documents, self.documents_key), turns

    def _requests(self, questions: Sequence[_Question], pruner: AT2Pruner) -> list[BatchRequest]:
        reads_scores = self.effective_options(pruner).prior in ("score", "cosine")
        return [
            (query, [self._chunk(one, reads_scores=reads_scores) for one in documents], turns)
            for query, documents, turns in questions
        ]

    def _chunk(self, document: Document, *, reads_scores: bool = False) -> Chunk:
        metadata = document.metadata
        title = None if self.title_key is None else metadata.get(self.title_key)
        return Chunk(
            text=document.page_content,
            title=title if isinstance(title, str) and title.strip() else None,
            id=document.id,
            retrieval_score=metadata.get(self.score_key) if reads_scores else None,
        )

    def _output(self, question: _Question, result: PruneResult | None) -> Any:
        documents = question[1]
        kept: list[Document] = []
        dropped: list[Document] = []
        if result is not None:
            kept = [self._copy(documents[one.index], one, result) for one in result.kept]
            dropped = [self._copy(documents[one.index], one, result) for one in result.dropped]
        if self.output_key is None:
            return kept
        others = {} if self.dropped_key is None else {self.dropped_key: dropped}
        return {self.output_key: kept, **others}

    def _copy(self, document: Document, chunk: ScoredChunk, result: PruneResult) -> Document:
        entries = result_entries(chunk, result)
        metadata = with_results(document.metadata, entries, prefix=self.metadata_prefix)
        if result.scored:
            earlier = metadata.get(_RELEVANCE)
            if earlier is None or (isinstance(earlier, Real) and not isinstance(earlier, bool)):
                metadata[_RELEVANCE] = chunk.relevance
            else:
                warn_of_collision(_RELEVANCE)
        text = {} if chunk.spans is None else {"page_content": chunk.kept_text}
        return document.model_copy(update={"metadata": metadata, **text})


def _documents(values: Any, name: str) -> list[Document]:
    """Return documents as a list; raises `InputError` if they are anything else."""
    if isinstance(values, str | Mapping | Document) or not isinstance(values, Iterable):
        raise InputError(f"{name} is {_kind(values)}; pass a list of Documents")
    documents = list(values)
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(
                f"{name}[{index}] is {_kind(document)}; pass Documents, for texts "
                "[Document(page_content=text) for text in texts]"
            )
    return documents


def _attributes(state: Any, keys: Iterable[str]) -> dict[str, Any]:
    """Return the attributes of these names that an object has, such as a dataclass or a model."""
    return {key: getattr(state, key) for key in keys if hasattr(state, key)}


def _result(result: PruneResult | Exception | None) -> PruneResult | None:
    """Return a result; raises what is an error."""
    if isinstance(result, Exception):
        raise result
    return result


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} ({brief(value)})"


def _summary(result: PruneResult) -> dict[str, Any]:
    """Return what callback handlers get, ready for JSON; documents by their index in the input."""
    kept, dropped = (
        [
            {"index": chunk.index, "id": chunk.id, "relevance": chunk.relevance}
            if result.scored
            else {"index": chunk.index, "id": chunk.id}
            for chunk in chunks
        ]
        for chunks in (result.kept, result.dropped)
    )
    return {
        "kept": kept,
        "dropped": dropped,
        "answerable": result.answerable,
        "tokens_before": result.tokens_before,
        "tokens_after": result.tokens_after,
        "timings": dict(result.timings),
        "notes": list(result.notes),
        "error": result.error,
    }
