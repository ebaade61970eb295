"""The node postprocessor: retrieved nodes in, the relevant ones out."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import SerializerFunctionWrapHandler, field_validator, model_serializer

from at2_rag.adapters import (
    AdapterSettings,
    OnResult,
    PrunerNames,
    result_entries,
    with_results,
)
from at2_rag.errors import InputError
from at2_rag.options import AdapterOverrides, PruneOptions
from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk

if TYPE_CHECKING:
    from at2_rag.pruner import AT2Pruner

_dispatcher = get_dispatcher(__name__)


class PostprocessorSettings(AdapterOverrides, PrunerNames, total=False):
    """The settings of `AT2NodePostprocessor` but the pruner, for type checkers."""

    title_key: str | None
    metadata_prefix: str
    keep_retrieval_score: bool
    on_result: OnResult | None
    callback_manager: CallbackManager


class AT2NodePostprocessor(AdapterSettings, BaseNodePostprocessor):
    """Keeps the nodes relevant to the query, with `NodeWithScore.score` set.

    Returns copies: the caller's nodes are never written to, and ids, metadata and content stay as
    they are. With `unit="sentence"` the text is what is kept of it (metadata is never cut;
    embedding and character positions, which are the whole text's, are cleared), and
    `metadata["at2_kept_spans"]` has the ranges `[start, end]` of the text that was passed in. With
    calibrated head weights `metadata["at2_answerable"]` is the probability that any node holds the
    answer. If scoring failed and the pruner has `on_error="keep_all"`, or wasn't needed
    (`skip_below_tokens`), all nodes come back with the scores they had.

    Added metadata is hidden from the LLM and from embeddings, and of this pass alone: a hidden
    value of the same type under such a key is that of an earlier pass, and left out. Any other is
    the caller's: it stays, ours is left out, and a warning is logged once.

    A node is scored and counted as the generator will see it: its content with the metadata meant
    for the LLM. A title in that metadata heads the text instead of its `title: ...` line, the form
    that the head weights were fitted on. With `title_key=None` nothing is moved.

    Options are those of `at2_rag.options.PruneOptions`, with `top_n` for `top_k`; all limits must
    hold. Without any, calibrated head weights (like the default ones) keep nodes that are at least
    a twentieth as likely to be relevant as the best one, and never fewer than the best 35 %;
    others keep the best three nodes (or sentences).

    Attributes:
        pruner: The pruner; None to load one on first use by `model` to `on_error`, which adapters
            share. Serialised settings leave it out, and options that weren't passed.
        model: Name or folder of the scoring model; None for the default model.
        head_weights: Name of shipped head weights ("best", "balanced", "fast", ...), or a folder
            that `at2-rag train` wrote; None for "best".
        device: Where the model runs; None for CUDA where there is one, else the CPU.
        chunk_cache: Folder that keeps what was read of chunks; None for main memory.
        on_error: "keep_all" to get all back, unranked, if scoring fails; None to raise.
        title_key: Metadata key of the title; None for no title.
        metadata_prefix: What the metadata keys that we write begin with.
        keep_retrieval_score: Put the retriever's score under `metadata["at2_retrieval_score"]`;
            what an earlier pass put there stays.
        on_result: Called with the `PruneResult` of each call, in which chunks are your own objects:
            what was dropped, notes and timings. Serialised settings leave it out.
        callback_manager: Whose handlers are told of each call, as `CBEventType.RERANKING`; a query
            engine puts its own here. Serialised settings leave it out.
    """

    keep_retrieval_score: bool = False

    if TYPE_CHECKING:

        def __init__(
            self, *, pruner: AT2Pruner | None = None, **settings: Unpack[PostprocessorSettings]
        ) -> None: ...

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex's serialisation uses."""
        return "AT2NodePostprocessor"

    @field_validator("callback_manager")
    @classmethod
    def _check_callback_manager(cls, value: object) -> object:
        if not isinstance(value, CallbackManager):  # LlamaIndex takes anything
            raise InputError(
                f"callback_manager is a {type(value).__name__}; pass a CallbackManager, or leave "
                "it out"
            )
        return value

    @model_serializer(mode="wrap")
    def _serialize_component(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**self._serialisable(serialize(self)), "class_name": self.class_name()}

    def __getstate__(self) -> dict[str, Any]:
        """Leave unset options out; LlamaIndex's `__setstate__` passes the state to `__init__`."""
        # LlamaIndex would silently leave out what can't be pickled.
        pickle.dumps((self.pruner, self.on_result))
        state = super().__getstate__()
        return {**state, "__dict__": self._without_unset(state["__dict__"])}

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _checked_query(query_bundle)
        if not nodes:
            return []
        pruner = self.loaded_pruner()
        options = self.effective_options(pruner)
        chunks = self._chunks(nodes, options)
        with self._rerank_events(query, nodes, pruner, options) as kept:
            result = pruner.prune(query.query_str, chunks, **self.overrides(pruner))
            self.report(result, nodes)
            kept += self._kept(nodes, result)
        return kept

    @_dispatcher.span  # LlamaIndex sees to that of the sync method alone
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _checked_query(query_bundle)
        if not nodes:
            return []
        pruner = await self.aloaded_pruner()
        options = self.effective_options(pruner)
        chunks = self._chunks(nodes, options)
        with self._rerank_events(query, nodes, pruner, options) as kept:
            result = await pruner.aprune(query.query_str, chunks, **self.overrides(pruner))
            self.report(result, nodes)
            kept += self._kept(nodes, result)
        return kept

    @contextmanager
    def _rerank_events(
        self,
        query: QueryBundle,
        nodes: list[NodeWithScore],
        pruner: AT2Pruner,
        options: PruneOptions,
    ) -> Iterator[list[NodeWithScore]]:
        """Send LlamaIndex's start events, and the end events whatever happens in between.

        Yields an empty list, to be filled with the kept nodes for the end events.
        """
        kept: list[NodeWithScore] = []
        top_n, model_name = options.top_k or len(nodes), pruner.model_name
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model_name,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: top_n,
        }
        _dispatcher.event(
            ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=model_name)
        )
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload) as event:
                yield kept
                event.on_end({EventPayload.NODES: kept})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=kept))

    def _chunks(self, nodes: list[NodeWithScore], options: PruneOptions) -> list[Chunk]:
        # A chunk that alone exceeds max_tokens is trimmed, too.
        may_trim = options.unit == "sentence" or options.max_tokens is not None
        return [self._chunk(retrieved, may_trim=may_trim) for retrieved in nodes]

    def _chunk(self, retrieved: NodeWithScore, *, may_trim: bool) -> Chunk:
        """Return what the generator will see of the node, with its title on top and only there.

        If texts may be trimmed, the chunk's text is the node's text alone, verbatim, and whatever
        is shown before it goes into the title, so that only the text can be trimmed.
        """
        node = retrieved.node
        text = node.get_content(metadata_mode=MetadataMode.LLM)
        title = None if self.title_key is None else node.metadata.get(self.title_key)
        title = title if isinstance(title, str) and title.strip() else None
        if title is not None:
            hidden = [*node.excluded_llm_metadata_keys, self.title_key]
            untitled = node.model_copy(update={"excluded_llm_metadata_keys": hidden})
            shown, text = text, untitled.get_content(metadata_mode=MetadataMode.LLM)
            title = None if text == shown else title
        if may_trim:
            content = node.get_content(metadata_mode=MetadataMode.NONE)
            before = text[: max(0, text.rfind(content.strip()))].strip()
            text, title = content, "\n".join(filter(None, (title, before))) or None
        return Chunk(text=text, title=title, id=node.node_id, retrieval_score=retrieved.score)

    def _kept(self, nodes: list[NodeWithScore], result: PruneResult) -> list[NodeWithScore]:
        return [self._copy(nodes[kept.index], kept, result) for kept in result.kept]

    def _copy(
        self, retrieved: NodeWithScore, kept: ScoredChunk, result: PruneResult
    ) -> NodeWithScore:
        node = retrieved.node
        llm, embed = node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys
        earlier = {key for key in node.metadata if key in llm and key in embed}
        results = result_entries(kept, result)
        prefix = self.metadata_prefix
        if self.keep_retrieval_score and f"{prefix}retrieval_score" not in earlier:
            results["retrieval_score"] = retrieved.score
        metadata = with_results(node.metadata, results, prefix=prefix, earlier=earlier)
        added, gone = metadata.keys() - node.metadata.keys(), node.metadata.keys() - metadata.keys()
        hidden_from_llm, hidden_from_embeddings = (
            [*(key for key in hidden if key not in gone), *sorted(added - set(hidden))]
            for hidden in (llm, embed)
        )
        copied = node.model_copy(
            update={
                "metadata": metadata,
                "excluded_llm_metadata_keys": hidden_from_llm,
                "excluded_embed_metadata_keys": hidden_from_embeddings,
            }
        )
        if kept.spans is not None:
            copied.set_content(kept.kept_text)
            # These describe the whole text.
            copied.embedding = None
            if isinstance(copied, TextNode):
                copied.start_char_idx = copied.end_char_idx = None
        score = kept.relevance if result.scored else retrieved.score
        return retrieved.model_copy(update={"node": copied, "score": score})


def _checked_query(query: QueryBundle | None) -> QueryBundle:
    if query is None:
        raise InputError("pruning needs the query; pass query_bundle or query_str")
    return query
