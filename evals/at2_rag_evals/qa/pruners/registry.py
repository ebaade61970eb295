"""Makes pruners by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

from at2_rag.errors import InputError
from at2_rag.options import Order, PruneOptions
from at2_rag_evals.extras import import_extra
from at2_rag_evals.named_systems import with_named
from at2_rag_evals.qa.budgets import adaptive_name
from at2_rag_evals.qa.pruners.base import Pruner
from at2_rag_evals.qa.pruners.ranking import RankingPruner
from at2_rag_evals.qa.pruners.simple import FIXED, FixedPruner, LastKRanker
from at2_rag_evals.qa.request import DEFAULT_PRUNERS, MORE_PRUNERS, QARequest
from at2_rag_evals.rankers import RANKERS, Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.embedding import EmbeddingRanker
from at2_rag_evals.rankers.query_heads import EvidenceHeads, QueryHeadsRanker


def make_pruners(request: QARequest) -> list[Pruner]:
    """Make the pruners of a request; what one lacks to run is known before any runs.

    Raises:
        InputError: If a name is unknown, or heads are to be chosen without training files.
        ImportError: If a package that a pruner needs isn't installed.
    """
    table = pruner_table(request)
    for name in request.judged:
        if name not in table:
            raise InputError(f"there is no pruner {name!r}; the known ones are {', '.join(table)}")
    return [table[name]() for name in request.judged]


def pruner_table(request: QARequest) -> dict[str, Callable[[], Pruner]]:
    """Return name -> what makes the pruner, those of named systems included."""
    options = replace(RankerOptions.of(request), remember=False)

    def ranking(
        make: Callable[[], Ranker], *, name: str | None = None, order: Order | None = None
    ) -> Callable[[], Pruner]:
        return lambda: RankingPruner(make(), name=name, store=request.store, order=order)

    @cache
    def heads() -> EvidenceHeads:
        if not request.train:
            raise InputError("heads are chosen on training items; pass --train FILE")
        return EvidenceHeads(request.train, model=request.model, seed=request.seed)

    table: dict[str, Callable[[], Pruner]] = {name: partial(FixedPruner, name) for name in FIXED}
    table |= {
        "first_k": ranking(partial(make_ranker, "first_k", options), order="original"),
        "last_k": ranking(LastKRanker, order="original"),
        "random_k": ranking(partial(make_ranker, "random", options), name="random_k"),
    }
    shared = [name for name in DEFAULT_PRUNERS + MORE_PRUNERS if name in RANKERS]
    for name in with_named(shared, request.weights, request.embeddings):
        table.setdefault(name, ranking(partial(make_ranker, name, options)))
    for max_missed in (None, *request.max_missed):
        for multi_hop in (None, True, False):
            name = adaptive_name(max_missed, multi_hop=multi_hop)
            choice = PruneOptions(max_missed=max_missed, multi_hop=multi_hop)
            table[name] = partial(_adaptive, request, name, choice)
    for count in (8, 16):
        name = f"heads_{count}"
        table[name] = ranking(
            lambda name=name, count=count: QueryHeadsRanker(name, heads(), count)  # type: ignore[misc]
        )
    return table | {
        "langchain_filter": ranking(partial(_langchain_filter, request)),
        "llama_index_optimizer": partial(_llama_index_optimizer, request),
        "long_llm_lingua": ranking(partial(_long_llm_lingua, request)),
    }


def _adaptive(request: QARequest, name: str, options: PruneOptions) -> Pruner:
    from at2_rag_evals.qa.pruners.adaptive import AT2AdaptivePruner  # imports transformers

    return AT2AdaptivePruner(
        name,
        options,
        model=request.model,
        head_weights=request.head_weights,
        store=request.store,
    )


def _langchain_filter(request: QARequest) -> Ranker:
    for module in ("langchain_classic", "langchain_community"):
        import_extra(module, extra="peers")
    from at2_rag_evals.qa.pruners.langchain_filter import LangChainFilterRanker

    return LangChainFilterRanker(EmbeddingRanker(request.embedding_model, remember=False))


def _llama_index_optimizer(request: QARequest) -> Pruner:
    import_extra("llama_index.core", extra="peers")
    from at2_rag_evals.qa.pruners.llama_index_optimizer import LlamaIndexPruner

    embedder = EmbeddingRanker(request.embedding_model, remember=False)
    return LlamaIndexPruner(embedder, store=request.store)


def _long_llm_lingua(request: QARequest) -> Ranker:
    import_extra("llmlingua", extra="peers")
    from at2_rag_evals.qa.pruners.long_llm_lingua import LongLLMLinguaRanker

    return LongLLMLinguaRanker(request.model)
