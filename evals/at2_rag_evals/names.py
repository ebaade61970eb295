"""What reports call the systems and settings, whose own names are values of options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

SHOWN: Mapping[str, str] = MappingProxyType(
    {
        "none": "every chunk",
        "closed_book": "no chunk",
        "oracle": "gold chunks alone",
        "first_k": "first chunks",
        "last_k": "last chunks",
        "random_k": "random chunks",
        "random": "random order",
        "bm25": "BM25",
        "bm25_unstemmed": "BM25 without stemming",
        "minilm": "MiniLM",
        "bm25_minilm": "BM25 fused with MiniLM",
        "all_heads_mean": "mean of all heads",
        "at2_joint": "at2 in joint reading",
        "at2_prior": "at2 with MiniLM's ranks",
        "at2_cosine": "at2 with MiniLM's cosines",
        "at2_multi_hop": "at2 with multi-hop",
        "at2_adaptive": "at2 without a limit",
        "at2_adaptive_multi_hop": "at2 without a limit, always multi-hop",
        "at2_adaptive_once": "at2 without a limit, never multi-hop",
        "best_head": "best head",
        "heads_8": "best 8 heads",
        "heads_16": "best 16 heads",
        "langchain_filter": "LangChain's EmbeddingsFilter",
        "llama_index_optimizer": "LlamaIndex's SentenceEmbeddingOptimizer",
        "long_llm_lingua": "LongLLMLingua",
    }
)
"""Name of a ranker or pruner -> what people read; others are shown as they are."""

_WITH_MAX_MISSED = re.compile(r"(at2_adaptive(?:_multi_hop|_once)?)_([\d.e+-]+)")


def shown(name: str) -> str:
    """Return what reports call a system, or a cell by its label: "BM25, top 3" for "bm25, top 3".

    What isn't known is returned as it is.
    """
    pruner, comma, rest = name.partition(", ")
    if match := _WITH_MAX_MISSED.fullmatch(pruner):
        return f"{SHOWN[match[1]]}, max_missed {match[2]}{comma}{rest}"
    return f"{SHOWN.get(pruner, pruner)}{comma}{rest}"


def in_prose(label: str) -> str:
    """Return the same for the middle of a sentence: "BM25 (top 3)"."""
    pruner, comma, rest = label.partition(", ")
    return f"{shown(pruner)} ({rest})" if comma else shown(pruner)
