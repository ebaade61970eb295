"""The systems that can rank, by name. A new baseline is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from at2_rag_evals.named_systems import NamedSystem
from at2_rag_evals.rankers.base import Ranker

BASELINES = ("random", "first_k", "bm25", "bm25_unstemmed", "minilm", "bm25_minilm")
AT2_FORMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "all_heads_mean": {"head_weights": "uniform"},
        "at2": {},
        "at2_joint": {"reading": "joint", "head_weights": None},
        "at2_prior": {"prior": "score"},
        "at2_cosine": {"prior": "cosine"},
        "at2_multi_hop": {"multi_hop": True},
    }
)
"""Forms of at2 and the arguments of `AT2Ranker` that make them."""

RANKERS = (*BASELINES, *AT2_FORMS)
VARIANTS = frozenset({"bm25_unstemmed", "bm25_minilm", *AT2_FORMS}) - {"all_heads_mean", "at2"}
"""Rankers that are judged only where they are named."""


@dataclass(frozen=True, slots=True)
class RankerOptions:
    """Options of rankers; each takes those that it has an argument for.

    Attributes:
        model: The scoring model of at2 in all its forms; None for the default model.
        head_weights: The head weights of at2 in most of its forms; None for those shipped.
        embedding_model: The model of `minilm`; None for all-MiniLM-L6-v2.
        weights: Head weights that are systems under their names.
        embeddings: Embedding models that are systems under theirs.
        remember: Whether systems cache what they made of a text for other items that have it.
    """

    seed: int = 0
    model: str | None = None
    head_weights: str | None = None
    embedding_model: str | None = None
    weights: tuple[NamedSystem, ...] = ()
    embeddings: tuple[NamedSystem, ...] = ()
    remember: bool = True

    @classmethod
    def of(cls, request: object) -> RankerOptions:
        """Return the options that a request has fields for."""
        names = [option.name for option in fields(cls) if hasattr(request, option.name)]
        return cls(**{name: getattr(request, name) for name in names})


def make_ranker(name: str, options: RankerOptions) -> Ranker:
    """Make the ranker of this name; what it lacks to run is an error here, not while it scores."""
    named = {each.name: {"head_weights": each.spec} for each in options.weights}
    forms: dict[str, Mapping[str, Any]] = {**AT2_FORMS, **named}
    if name in forms:
        from at2_rag_evals.rankers.at2 import AT2Ranker

        arguments = {
            "head_weights": options.head_weights,
            "embedding_model": options.embedding_model,
            "remember": options.remember,
            **forms[name],
        }
        return AT2Ranker(options.model, name=name, **arguments)
    from at2_rag_evals.rankers.bm25 import BM25Ranker
    from at2_rag_evals.rankers.embedding import EmbeddingRanker
    from at2_rag_evals.rankers.first_k import FirstKRanker
    from at2_rag_evals.rankers.random_order import RandomRanker
    from at2_rag_evals.rankers.rank_fusion import RankFusionRanker

    embedding_models = {"minilm": options.embedding_model}
    embedding_models |= {each.name: each.spec for each in options.embeddings}
    if name in embedding_models:
        return EmbeddingRanker(embedding_models[name], name=name, remember=options.remember)
    match name:
        case "random":
            return RandomRanker(options.seed)
        case "first_k":
            return FirstKRanker()
        case "bm25" | "bm25_unstemmed":
            return BM25Ranker(stemming=name == "bm25")
        case "bm25_minilm":
            return RankFusionRanker(options.embedding_model, remember=options.remember)
    raise ValueError(f"there is no ranker {name!r}; the known ones are {', '.join(RANKERS)}")
