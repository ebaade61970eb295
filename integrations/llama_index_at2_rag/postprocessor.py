"""The node postprocessor: retrieved nodes in, the relevant ones out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from at2_rag.adapters import AdapterSettings
from at2_rag.errors import InputError
from at2_rag.options import AdapterOverrides
from at2_rag.pruner import AT2Pruner
from at2_rag.results import PruneResult
from at2_rag.text.chunks import Chunk
from llama_index_at2_rag.nodes import as_chunk, kept_nodes
from llama_index_at2_rag.rerank_events import rerank_events


class PostprocessorSettings(AdapterOverrides, total=False):
    """The settings of `AT2NodePostprocessor` but the pruner, for type checkers."""

    title_key: str | None
    keep_retrieval_score: bool


class AT2NodePostprocessor(AdapterSettings, BaseNodePostprocessor):
    """Keeps the nodes relevant to the query, with `NodeWithScore.score` set.

    Returns copies: the caller's nodes are never written to, and ids, metadata and content stay as
    they are. With `unit="sentence"` the text is what is kept of it (metadata is never cut), and
    `metadata["kept_spans"]` has the ranges `[start, end]` of the original text. With calibrated
    head weights `metadata["answerable"]` is the probability that any node holds the answer. Added
    metadata is hidden from the LLM and from embeddings. If scoring failed and the pruner has
    `on_error="keep_all"`, or wasn't needed (`skip_below_tokens`), all nodes come back with the
    scores they had.

    A node is scored and counted as the generator will see it: its content with the metadata meant
    for the LLM. A title in that metadata heads the text instead of its `title: ...` line, the form
    that the head weights were fitted on. With `title_key=None` nothing is moved.

    Options are those of `at2_rag.options.PruneOptions`, with `top_n` for `top_k`; all limits must
    hold. Without any, calibrated head weights (like the default ones) keep the nodes that are
    probably relevant; others keep the best three nodes (or sentences).

    Attributes:
        pruner: The pruner; None for that of the default model, loaded on first use and shared by
            the process. Not part of the serialised settings.
        title_key: Metadata key of the title; None for no title.
        keep_retrieval_score: Put the retriever's score under `metadata["retrieval_score"]`.
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

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        if not nodes:
            return []
        pruner = self.loaded_pruner()
        options = self.overrides(pruner)
        with rerank_events(query, nodes, top_n=self._top_n, pruner=pruner) as kept:
            kept += self._kept(nodes, pruner.prune(query, self._chunks(nodes), **options))
        return kept

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        if not nodes:
            return []
        pruner = await self.aloaded_pruner()
        options = self.overrides(pruner)
        with rerank_events(query, nodes, top_n=self._top_n, pruner=pruner) as kept:
            kept += self._kept(nodes, await pruner.aprune(query, self._chunks(nodes), **options))
        return kept

    @property
    def _top_n(self) -> int | None:
        return self.prune_options().top_k

    def _chunks(self, nodes: list[NodeWithScore]) -> list[Chunk]:
        apart = self.prune_options().unit == "sentence"
        return [as_chunk(node, self.title_key, apart=apart) for node in nodes]

    def _kept(self, nodes: list[NodeWithScore], result: PruneResult) -> list[NodeWithScore]:
        return kept_nodes(nodes, result, keep_retrieval_score=self.keep_retrieval_score)


def _query_of(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise InputError("pruning needs the query; pass query_bundle or query_str")
    return query_bundle.query_str
