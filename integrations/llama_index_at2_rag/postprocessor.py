"""The node postprocessor: retrieved nodes in, the few that matter out."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import ConfigDict, Field, model_validator

from at2_rag.default_pruner import default_pruner
from at2_rag.errors import InputError
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
from at2_rag.text.chunks import Chunk, Prior, PruneResult
from llama_index_at2_rag.nodes import as_chunk, kept_nodes
from llama_index_at2_rag.rerank_events import rerank_events


class AT2NodePostprocessor(BaseNodePostprocessor):
    """Keeps the nodes that matter for the query, with `NodeWithScore.score` set.

    The nodes returned are copies, with ids, metadata and content as they came (of the content, with
    `unit="sentence"`, what is kept); the caller's own are never written to. Where scoring failed
    and the pruner was built with `on_error="keep_all"`, or wasn't needed (`skip_below_tokens`), all
    nodes come back with the scores they had.

    A node is scored on what the generator will see of it, its content with the metadata meant
    for the LLM. Where that metadata holds the title, the title heads the text once, in place
    of its `title: ...` line: the form the head weights were fitted on, and the form in which
    `max_tokens` counts. With `title_key=None` content is scored and counted exactly as it is.

    Several limits must all hold. Without any, calibrated head weights (as the default ones are)
    keep the nodes that are likely to matter; with others the best three nodes (or sentences).

    Attributes:
        pruner: The pruner; None for that of the default model, loaded on first use and shared
            by the process. Not part of the serialised settings.
        top_n: Keep at most this many nodes, or sentences.
        max_tokens: Keep at most this many tokens, titles and separators included.
        min_score: Keep nodes with at least this probability (score, where not calibrated).
        top_p: Keep the smallest set that holds this share of the probabilities (likewise).
        max_missed: Keep the smallest set beside which no more nodes that matter are expected.
        skip_below_tokens: Pass on nodes of at most this many tokens in all as they are,
            unscored; of the limits only `max_tokens` holds then.
        order: `"score"` for best first, `"original"` for the retriever's order.
        unit: `"chunk"`, or `"sentence"`: limits choose among the sentences of all nodes, and only
            those that matter are kept of a node. Its text is then what is kept, and
            `metadata["kept_spans"]` (hidden from the LLM and from embeddings) says where in the
            node's own text that stands: a list of `[start, end]`. Metadata is never cut.
        protect: A regular expression; each node (or sentence) with a match is kept in any case.
        max_overlap: Drop nodes (or sentences) of which this share stands in better ones
            that are kept, unless a number, a name or a negation is new; None to keep duplicates.
        if_unanswerable: `"keep_best"` for one node at most, `"keep_none"` for none (but what is
            protected), where most likely none holds the answer; like `max_missed` it needs
            calibrated head weights. `"flag"` keeps what the limits say; with calibrated weights
            `metadata["answerable"]` (hidden) tells how likely it is that any node helps.
        prior: Let the retriever weigh in: ranks by the nodes' scores (`"score"`, larger is better)
            or as they stand, best first (`"order"`), or scores that are cosines (`"cosine"`).
        multi_hop: Ask again beside the best node, for answers that take two; None to do so where
            the best alone doesn't meet the max_missed.
        title_key: Metadata key of the title, see above; None for none.
        keep_retrieval_score: Put a node's score under `metadata["retrieval_score"]`, hidden, too.
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
    multi_hop: bool | None = None
    title_key: str | None = "title"
    keep_retrieval_score: bool = False

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        check_limits(**self._limits(calibrated=False))
        return self

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
        pruner = self.pruner or default_pruner()
        with rerank_events(query, nodes, top_n=self.top_n, pruner=pruner) as kept:
            limits = self._limits(calibrated=pruner.calibrated)
            kept += self._kept(nodes, pruner.prune(query, self._chunks(nodes), **limits))
        return kept

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        if not nodes:
            return []
        pruner = self.pruner
        if pruner is None:
            pruner = await asyncio.to_thread(default_pruner)
        with rerank_events(query, nodes, top_n=self.top_n, pruner=pruner) as kept:
            limits = self._limits(calibrated=pruner.calibrated)
            kept += self._kept(nodes, await pruner.aprune(query, self._chunks(nodes), **limits))
        return kept

    def _limits(self, *, calibrated: bool) -> dict[str, Any]:
        options = {"top_k": self.top_n, **{name: getattr(self, name) for name in OPTIONS}}
        return or_default(options, calibrated=calibrated)

    def _chunks(self, nodes: list[NodeWithScore]) -> list[Chunk]:
        return [as_chunk(own, self.title_key, apart=self.unit == "sentence") for own in nodes]

    def _kept(self, nodes: list[NodeWithScore], result: PruneResult) -> list[NodeWithScore]:
        return kept_nodes(nodes, result, keep_retrieval_score=self.keep_retrieval_score)


def _query_of(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise InputError("pruning needs the query; pass query_bundle or query_str")
    return query_bundle.query_str
