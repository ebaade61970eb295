"""The systems that can rank, by name. A new baseline is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from at2_rag_evals.lazy import maker
from at2_rag_evals.named_weights import NamedWeights
from at2_rag_evals.rankers.base import Ranker


@dataclass(frozen=True, slots=True)
class RankerOptions:
    """Options of rankers; each takes those that it has an argument for.

    Attributes:
        seed: Seed of the random order.
        model: The scoring model of at2 in all its forms; None for the default model.
        head_weights: The head weights of at2 in most of its forms; None for those shipped.
        embedding_model: The model of `minilm`; None for all-MiniLM-L6-v2.
        weights: Head weights that are systems under their names.
        remember: Whether systems cache what they made of a text for other items that have it, so
            that an item's seconds depend on those before it.
    """

    seed: int = 0
    model: str | None = None
    head_weights: str | None = None
    embedding_model: str | None = None
    weights: tuple[NamedWeights, ...] = ()
    remember: bool = True

    @classmethod
    def of(cls, request: object, *, remember: bool = True) -> RankerOptions:
        """Return the options that a request has fields for."""
        names = [option.name for option in fields(cls) if hasattr(request, option.name)]
        return cls(remember=remember, **{name: getattr(request, name) for name in names})


Maker = Callable[[RankerOptions], Ranker]


def _at2(name: str, **arguments: Any) -> Maker:
    options = ("model", "head_weights", "embedding_model", "remember")
    return maker("rankers.at2:AT2Ranker", *options, name=name, **arguments)


BASELINES: Mapping[str, Maker] = MappingProxyType(
    {
        "random": maker("rankers.random_order:RandomRanker", "seed"),
        "first_k": maker("rankers.first_k:FirstKRanker"),
        "bm25": maker("rankers.bm25:BM25Ranker"),
        "bm25_unstemmed": maker("rankers.bm25:BM25Ranker", stemming=False),
        "minilm": maker("rankers.minilm:MiniLMRanker", "embedding_model", "remember"),
        "bm25_minilm": maker("rankers.rank_fusion:RankFusionRanker", "embedding_model", "remember"),
    }
)
AT2_FORMS: Mapping[str, Maker] = MappingProxyType(
    {
        "all_heads_mean": _at2("all_heads_mean", head_weights="uniform"),
        "at2": _at2("at2"),
        "at2_int8": _at2("at2_int8", precision="int8"),
        "at2_joint": _at2("at2_joint", reading="joint", head_weights=None),
        "at2_prior": _at2("at2_prior", prior="score"),
        "at2_cosine": _at2("at2_cosine", prior="cosine"),
        "at2_multi_hop": _at2("at2_multi_hop", multi_hop=True),
    }
)
RANKERS: Mapping[str, Maker] = MappingProxyType({**BASELINES, **AT2_FORMS})

VARIANTS = frozenset({"bm25_unstemmed", "bm25_minilm", *AT2_FORMS}) - {"all_heads_mean", "at2"}
"""Rankers that are judged only where they are named."""


def make_ranker(name: str, options: RankerOptions) -> Ranker:
    """Make the ranker of this name; what it lacks to run is known before it scores.

    Raises:
        AT2Error: If a model or head weights can't be found.
        ImportError: If a package that it needs isn't installed.
    """
    named = {weights.name: weights.head_weights for weights in options.weights}
    if name in named:
        return _at2(name, head_weights=named[name])(options)
    return RANKERS[name](options)
