"""Makes pruners by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from at2_rag.errors import InputError
from at2_rag.options import Order
from at2_rag_evals.extras import import_extra
from at2_rag_evals.qa.budgets import adaptive_name
from at2_rag_evals.qa.pruners.base import Pruner
from at2_rag_evals.qa.pruners.fixed import FIXED, FixedPruner, LastKRanker
from at2_rag_evals.qa.pruners.ranking import RankingPruner
from at2_rag_evals.qa.request import QARequest
from at2_rag_evals.rankers import Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.first_k import FirstKRanker
from at2_rag_evals.rankers.minilm import MiniLMRanker

_RANKERS = (
    "bm25",
    "bm25_unstemmed",
    "minilm",
    "bm25_minilm",
    "all_heads_mean",
    "at2",
    "at2_joint",
)
"""Systems of the ranking eval that are pruners under the same name."""


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
        "first_k": ranking(FirstKRanker, order="original"),
        "last_k": ranking(LastKRanker, order="original"),
        "random_k": ranking(partial(make_ranker, "random", options), name="random_k"),
    }
    for name in (*_RANKERS, *(named.name for named in request.weights)):
        table[name] = ranking(partial(make_ranker, name, options))
    for max_missed in (None, *request.max_missed):
        for multi_hop in (None, True, False):
            name = adaptive_name(max_missed, multi_hop=multi_hop)
            table[name] = partial(_adaptive, name, max_missed, multi_hop, request)

    @cache
    def heads() -> Heads:
        pass

    table["langchain_filter"] = ranking(partial(_langchain_filter, request))
    table["llama_index_optimizer"] = partial(_llama_index_optimizer, request)
    table["long_llm_lingua"] = ranking(partial(_long_llm_lingua, request))
    return table
