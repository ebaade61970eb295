"""Makes pruners by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from at2_rag.errors import InputError
from at2_rag.options import Order, PruneOptions
from at2_rag_evals.extras import import_extra
from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads
from at2_rag_evals.qa.budgets import adaptive_name
from at2_rag_evals.qa.pruners.base import Pruner
from at2_rag_evals.qa.pruners.fixed import FIXED, FixedPruner, LastKRanker
from at2_rag_evals.qa.pruners.query_heads import QueryHeadsRanker
from at2_rag_evals.qa.pruners.ranking import RankingPruner
from at2_rag_evals.qa.pruners.trimming import TrimmingPruner
from at2_rag_evals.qa.request import DEFAULT_PRUNERS, MORE_PRUNERS, QARequest
from at2_rag_evals.rankers import RANKERS, Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.minilm import MiniLMRanker


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
    """Return name -> what makes the pruner, those of named head weights included."""
    options = RankerOptions(
        seed=request.seed,
        model=request.model,
        head_weights=request.head_weights,
        embedding_model=request.embedding_model,
        weights=request.weights,
        remember=False,
    )

    def ranking(
        ranker: Callable[[], Ranker], *, name: str | None = None, order: Order | None = None
    ) -> Callable[[], Pruner]:
        return lambda: RankingPruner(ranker(), name=name, store=request.store, order=order)

    table: dict[str, Callable[[], Pruner]] = {
        name: partial(FixedPruner, name, keep) for name, keep in FIXED.items()
    }
    table |= {
        "first_k": ranking(partial(make_ranker, "first_k", options), order="original"),
        "last_k": ranking(LastKRanker, order="original"),
        "random_k": ranking(partial(make_ranker, "random", options), name="random_k"),
    }
    shared = [name for name in DEFAULT_PRUNERS + MORE_PRUNERS if name in RANKERS]
    for name in (*shared, *(named.name for named in request.weights)):
        table.setdefault(name, ranking(partial(make_ranker, name, options)))
    for max_missed in (None, *request.max_missed):
        for multi_hop in (None, True, False):
            name = adaptive_name(max_missed, multi_hop=multi_hop)
            choice = PruneOptions(max_missed=max_missed, multi_hop=multi_hop)
            table[name] = partial(_adaptive, request, name, choice)

    @cache
    def heads() -> EvidenceHeads:
        if not request.train:
            raise InputError("heads are chosen on training items; pass --train FILE")
        return EvidenceHeads(request.train, model=request.model, seed=request.seed)

    for count in (8, 16):
        name = f"heads_{count}"
        table[name] = ranking(partial(_heads, name, heads, count))
    return table | {
        "langchain_filter": ranking(partial(_langchain_filter, options)),
        "llama_index_optimizer": partial(_llama_index_optimizer, request, options),
        "long_llm_lingua": ranking(partial(_long_llm_lingua, options)),
    }


def _heads(name: str, heads: Callable[[], EvidenceHeads], count: int) -> Ranker:
    return QueryHeadsRanker(name, heads(), count)


def _adaptive(request: QARequest, name: str, options: PruneOptions) -> Pruner:
    from at2_rag_evals.qa.pruners.adaptive import AT2AdaptivePruner  # imports transformers

    return AT2AdaptivePruner(
        name,
        options,
        model=request.model,
        head_weights=request.head_weights,
        store=request.store,
    )


def _langchain_filter(options: RankerOptions) -> Ranker:
    _import_peers("langchain_classic", "langchain_community")
    from at2_rag_evals.qa.pruners.langchain_filter import LangChainFilterRanker

    return LangChainFilterRanker(_minilm(options))


def _llama_index_optimizer(request: QARequest, options: RankerOptions) -> Pruner:
    _import_peers("llama_index.core")
    from at2_rag_evals.qa.pruners.llama_index_optimizer import LlamaIndexOptimizer

    embedder = _minilm(options)
    return TrimmingPruner(embedder, LlamaIndexOptimizer(embedder), store=request.store)


def _long_llm_lingua(options: RankerOptions) -> Ranker:
    _import_peers("llmlingua")
    from at2_rag_evals.qa.pruners.long_llm_lingua import LongLLMLinguaRanker

    return LongLLMLinguaRanker(options.model)


def _import_peers(*modules: str) -> None:
    for module in modules:
        import_extra(module, extra="peers")


def _minilm(options: RankerOptions) -> MiniLMRanker:
    return MiniLMRanker(options.embedding_model, remember=options.remember)
