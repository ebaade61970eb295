"""Makes the pruners of other projects, whose packages the extra `peers` installs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from at2_rag_evals.extras import import_extra
from at2_rag_evals.qa.pruners.base import Pruner
from at2_rag_evals.qa.pruners.ranking import RankingPruner
from at2_rag_evals.qa.pruners.trimming import TrimmingPruner
from at2_rag_evals.rankers import RankerOptions
from at2_rag_evals.rankers.minilm import MiniLMRanker


def _langchain_filter(options: RankerOptions, folder: Path | None) -> Pruner:
    _import("langchain_classic", "langchain_community")
    from at2_rag_evals.qa.pruners.langchain_filter import LangChainFilterRanker

    return RankingPruner(LangChainFilterRanker(_minilm(options)), folder=folder)


def _llama_index_optimizer(options: RankerOptions, folder: Path | None) -> Pruner:
    _import("llama_index.core")
    from at2_rag_evals.qa.pruners.llama_index_optimizer import LlamaIndexOptimizer

    embedder = _minilm(options)
    return TrimmingPruner(embedder, LlamaIndexOptimizer(embedder), folder=folder)


def _long_llm_lingua(options: RankerOptions, folder: Path | None) -> Pruner:
    _import("llmlingua")
    from at2_rag_evals.qa.pruners.long_llm_lingua import LongLLMLinguaRanker

    return RankingPruner(LongLLMLinguaRanker(options.model), folder=folder)


def _import(*modules: str) -> None:
    for module in modules:
        import_extra(module, extra="peers")


def _minilm(options: RankerOptions) -> MiniLMRanker:
    return MiniLMRanker(options.embedding_model, remember=options.remember)


PEERS: Mapping[str, Callable[[RankerOptions, Path | None], Pruner]] = MappingProxyType(
    {
        "langchain_filter": _langchain_filter,
        "llama_index_optimizer": _llama_index_optimizer,
        "long_llm_lingua": _long_llm_lingua,
    }
)
"""Name -> what makes the pruner; raises ImportError with the pip line for a missing package."""
