"""Makes systems by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from at2_rag.text.chunks import Prior
from at2_rag_evals.named_weights import NamedWeights
from at2_rag_evals.rankers.base import Ranker
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.first_k import FirstKRanker
from at2_rag_evals.rankers.minilm import MiniLMRanker
from at2_rag_evals.rankers.random_order import RandomRanker
from at2_rag_evals.rankers.rank_fusion import RankFusionRanker


@dataclass(frozen=True, slots=True)
class RankerOptions:
    """What systems can be told.

    Attributes:
        seed: Seed of the random order.
        model: The scoring model of `all_heads_mean` and of `at2` in all its forms; None for
            the default model.
        head_weights: The head weights of `at2` and its forms but `at2_joint`; None
            for those shipped for the model.
        weights: Head weights that are systems of their own.
        embedding_model: The model of `minilm` wherever it has a part; None for all-MiniLM-L6-v2.
        remember: Whether systems keep what they made of a text for other items that have it, so
            that an item's seconds depend on those before it.
    """

    seed: int = 0
    model: str | None = None
    head_weights: str | None = None
    embedding_model: str | None = None
    weights: tuple[NamedWeights, ...] = ()
    remember: bool = True


def _all_heads_mean(options: RankerOptions) -> Ranker:
    from at2_rag_evals.rankers.all_heads_mean import AllHeadsMeanRanker  # imports torch

    return AllHeadsMeanRanker(options.model, remember=options.remember)


def _at2_int8(options: RankerOptions) -> Ranker:
    from at2_rag_evals.rankers.at2_int8 import AT2Int8Ranker  # imports torch

    return AT2Int8Ranker(
        options.model, head_weights=options.head_weights, remember=options.remember
    )


def _at2_joint(options: RankerOptions) -> Ranker:
    from at2_rag_evals.rankers.at2_joint import AT2JointRanker  # imports torch

    return AT2JointRanker(options.model, remember=options.remember)


def _at2_multi_hop(options: RankerOptions) -> Ranker:
    from at2_rag_evals.rankers.at2_multi_hop import AT2MultiHopRanker  # imports torch

    return AT2MultiHopRanker(
        options.model, head_weights=options.head_weights, remember=options.remember
    )


def _at2_prior(options: RankerOptions, name: str = "at2_prior", prior: Prior = "score") -> Ranker:
    from at2_rag_evals.rankers.at2_prior import AT2PriorRanker  # imports torch

    return AT2PriorRanker(
        options.model,
        head_weights=options.head_weights,
        embedding_model=options.embedding_model,
        name=name,
        prior=prior,
        remember=options.remember,
    )


def _at2(options: RankerOptions) -> Ranker:
    from at2_rag_evals.rankers.at2 import AT2Ranker  # imports torch

    return AT2Ranker(options.model, head_weights=options.head_weights, remember=options.remember)


SYSTEMS: Mapping[str, Callable[[RankerOptions], Ranker]] = MappingProxyType(
    {
        "random": lambda options: RandomRanker(options.seed),
        "first_k": lambda options: FirstKRanker(),
        "bm25": lambda options: BM25Ranker(),
        "bm25_unstemmed": lambda options: BM25Ranker(stemming=False),
        "minilm": lambda options: MiniLMRanker(options.embedding_model, remember=options.remember),
        "bm25_minilm": lambda options: RankFusionRanker(
            options.embedding_model, remember=options.remember
        ),
        "all_heads_mean": _all_heads_mean,
        "at2": _at2,
        "at2_int8": _at2_int8,
        "at2_joint": _at2_joint,
        "at2_prior": _at2_prior,
        "at2_cosine": lambda options: _at2_prior(options, "at2_cosine", "cosine"),
        "at2_multi_hop": _at2_multi_hop,
    }
)


def make_ranker(name: str, options: RankerOptions) -> Ranker:
    """Make the system of this name; what it lacks to run is found out here."""
    for own in options.weights:
        if own.name == name:
            from at2_rag_evals.rankers.named_weights import NamedWeightsRanker  # imports torch

            return NamedWeightsRanker(own, model=options.model, remember=options.remember)
    return SYSTEMS[name](options)
