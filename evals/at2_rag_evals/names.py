"""The systems and settings that evals judge: their names in options and in reports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class System(NamedTuple):
    """What reports call a system or setting, and what the help says it is."""

    shown: str
    what: str


SYSTEMS: Mapping[str, System] = MappingProxyType(
    {
        "none": System("every chunk", "every chunk, nothing pruned"),
        "closed_book": System("no chunk", "no chunk at all"),
        "oracle": System("gold chunks alone", "the gold chunks, whatever the budget"),
        "gold": System("gold labels", "1 for gold chunks, 0 for others"),
        "first_k": System("first chunks", "the first chunks"),
        "last_k": System("last chunks", "the last chunks"),
        "random": System("random order", "random order, seeded"),
        "random_k": System("random chunks", "random chunks, seeded"),
        "bm25": System("BM25", "BM25 over title and text, stemmed"),
        "bm25_unstemmed": System("BM25 without stemming", "bm25 without stemming"),
        "minilm": System("MiniLM", "cosine of all-MiniLM-L6-v2 embeddings"),
        "bm25_minilm": System(
            "BM25 fused with MiniLM", "reciprocal rank fusion of bm25 and minilm"
        ),
        "all_heads_mean": System(
            "mean of all heads", "at2's scoring model, the mean of all its heads"
        ),
        "at2": System("at2", "at2 with its head weights"),
        "at2_joint": System("at2 in joint reading", "at2 in joint reading"),
        "at2_prior": System("at2 with MiniLM's ranks", "at2 with minilm's ranks as its prior"),
        "at2_cosine": System("at2 with MiniLM's cosines", "at2 with minilm's cosines as its prior"),
        "at2_multi_hop": System(
            "at2 with multi-hop", "at2 reading the question again beside the best chunk"
        ),
        "at2_adaptive": System(
            "at2 without a limit", "what at2 keeps without a limit, whatever the budget"
        ),
        "at2_adaptive_multi_hop": System(
            "at2 without a limit, always multi-hop",
            "at2_adaptive, always reading the question again",
        ),
        "at2_adaptive_once": System(
            "at2 without a limit, never multi-hop", "at2_adaptive, never reading the question again"
        ),
        "best_head": System("best head", "the head that attends most to gold chunks of --train"),
        "heads_8": System("best 8 heads", "the 8 heads that attend most to gold chunks of --train"),
        "heads_16": System(
            "best 16 heads", "the 16 heads that attend most to gold chunks of --train"
        ),
        "answer_heads_mean": System(
            "mean of all heads for the answer", "the answer's attention, the mean of all heads"
        ),
        "at2_answer": System(
            "at2 for the answer", "the answer's attention, weighted as in AT2Attributor"
        ),
        "leave_one_out": System("leave-one-out", "the answer's change when a chunk is removed"),
        "regression_32": System(
            "regression on 32 ablations", "ContextCite's Lasso on 32 ablations"
        ),
        "masked_regression": System(
            "regression on masked chunk states", "regression_32 over masked chunk states"
        ),
        "langchain_filter": System(
            "LangChain's EmbeddingsFilter", "LangChain's EmbeddingsFilter over minilm's embeddings"
        ),
        "llama_index_optimizer": System(
            "LlamaIndex's SentenceEmbeddingOptimizer", "LlamaIndex's SentenceEmbeddingOptimizer"
        ),
        "long_llm_lingua": System("LongLLMLingua", "LongLLMLingua's choice of documents"),
    }
)
"""Systems that evals judge, by name."""

_WITH_MAX_MISSED = re.compile(r"(at2_adaptive(?:_multi_hop|_once)?)_([\d.e+-]+)")


def shown(name: str) -> str:
    """Return what reports call a system, or a cell by its label: "BM25, top 3" for "bm25, top 3".

    What isn't known is returned as it is.
    """
    pruner, comma, rest = name.partition(", ")
    if match := _WITH_MAX_MISSED.fullmatch(pruner):
        return f"{SYSTEMS[match[1]].shown}, max_missed {match[2]}{comma}{rest}"
    system = SYSTEMS.get(pruner)
    return f"{pruner if system is None else system.shown}{comma}{rest}"


def in_prose(label: str) -> str:
    """Return the same for the middle of a sentence: "BM25 (top 3)"."""
    pruner, comma, rest = label.partition(", ")
    return f"{shown(pruner)} ({rest})" if comma else shown(pruner)
