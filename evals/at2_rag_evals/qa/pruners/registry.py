"""Makes pruners by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from at2_rag.errors import InputError
from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads
from at2_rag_evals.qa.budgets import adaptive_name
from at2_rag_evals.qa.pruners.base import Pruner
from at2_rag_evals.qa.pruners.closed_book import ClosedBookPruner
from at2_rag_evals.qa.pruners.keep_all import KeepAllPruner
from at2_rag_evals.qa.pruners.last_k import LastKRanker
from at2_rag_evals.qa.pruners.oracle import OraclePruner
from at2_rag_evals.qa.pruners.peers import PEERS
from at2_rag_evals.qa.pruners.query_heads import QueryHeadsRanker
from at2_rag_evals.qa.pruners.ranking import RankingPruner
from at2_rag_evals.rankers import Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.first_k import FirstKRanker
from at2_rag_evals.rankers.registry import SYSTEMS

HEAD_COUNTS: Mapping[str, int] = MappingProxyType({"heads_8": 8, "heads_16": 16})


_NO_PRUNERS = frozenset(
    {"first_k", "random", "at2_int8", "at2_prior", "at2_cosine", "at2_multi_hop"}
)
"""Systems of the ranking eval that have a pruner of another name here, or none."""


@dataclass(frozen=True, slots=True)
class PrunerOptions:
    """What pruners can be told.

    Attributes:
        ranker: What rankers can be told.
        train: Training files that `heads_8` and `heads_16` are chosen on.
        folder: Where scores are stored; None for nowhere.
        max_missed: Tolerances with each of which at2_rag is a pruner without a budget.
    """

    ranker: RankerOptions = field(default_factory=lambda: RankerOptions(remember=False))
    train: Sequence[Path] = ()
    folder: Path | None = None
    max_missed: Sequence[float] = ()


def make_pruners(names: Sequence[str], options: PrunerOptions) -> list[Pruner]:
    """Make pruners by name; what they lack to run is found out here.

    Raises:
        InputError: If a name is unknown or appears twice, or heads are to be chosen without
            training files.
        ImportError: If a package that a pruner needs isn't installed.
    """
    heads: dict[str, EvidenceHeads] = {}

    def shared_heads() -> EvidenceHeads:
        if not heads:
            heads["shared"] = EvidenceHeads(
                options.train, model=options.ranker.model, seed=options.ranker.seed
            )
        return heads["shared"]

    known = known_pruners(options)
    for name in names:
        if name not in known:
            raise InputError(f"there is no pruner {name!r}; the known ones are {', '.join(known)}")
        if names.count(name) > 1:
            raise InputError(f"the pruner {name!r} is named twice; name it once")
        if name in HEAD_COUNTS and not options.train:
            raise InputError(
                f"the pruner {name!r} chooses its heads on training items; pass --train FILE"
            )
    return [_make(name, options, shared_heads) for name in names]


def known_pruners(options: PrunerOptions) -> tuple[str, ...]:
    """Return the names of all pruners, those of named head weights included."""
    named = tuple(own.name for own in options.ranker.weights)
    rankers = tuple(name for name in SYSTEMS if name not in _NO_PRUNERS)
    adaptive = (name for name, _, _ in _adaptive_kinds(options))
    return (*_OTHERS, *rankers, *adaptive, *HEAD_COUNTS, *PEERS, *named)


def _make(name: str, options: PrunerOptions, shared_heads: Callable[[], EvidenceHeads]) -> Pruner:
    if name in _OTHERS:
        return _OTHERS[name](options)
    for own, max_missed, multi_hop in _adaptive_kinds(options):
        if name == own:
            return _adaptive(name, max_missed, multi_hop, options)
    if name in PEERS:
        return PEERS[name](options.ranker, options.folder)
    if name in HEAD_COUNTS:
        ranker = QueryHeadsRanker(name, shared_heads(), HEAD_COUNTS[name])
        return RankingPruner(ranker, folder=options.folder)
    return RankingPruner(make_ranker(name, options.ranker), folder=options.folder)


def _adaptive_kinds(options: PrunerOptions) -> list[tuple[str, float | None, bool | None]]:
    """Return the names of at2_rag without a budget, each with its max_missed and multi-hop."""
    return [
        (adaptive_name(max_missed, multi_hop=multi_hop), max_missed, multi_hop)
        for max_missed in (None, *options.max_missed)
        for multi_hop in (None, True, False)
    ]


def _adaptive(
    name: str, max_missed: float | None, multi_hop: bool | None, options: PrunerOptions
) -> Pruner:
    from at2_rag_evals.qa.pruners.at2_adaptive import AT2AdaptivePruner  # imports transformers

    return AT2AdaptivePruner(
        options.ranker.model,
        head_weights=options.ranker.head_weights,
        name=name,
        max_missed=max_missed,
        multi_hop=multi_hop,
        folder=options.folder,
    )


def _by_place(ranker: Ranker, options: PrunerOptions) -> Pruner:
    return RankingPruner(ranker, folder=options.folder, order="original")


def _random_k(options: PrunerOptions) -> Pruner:
    ranker = make_ranker("random", options.ranker)
    return RankingPruner(ranker, name="random_k", folder=options.folder)


_OTHERS: Mapping[str, Callable[[PrunerOptions], Pruner]] = MappingProxyType(
    {
        "none": lambda options: KeepAllPruner(),
        "closed_book": lambda options: ClosedBookPruner(),
        "oracle": lambda options: OraclePruner(),
        "first_k": lambda options: _by_place(FirstKRanker(), options),
        "last_k": lambda options: _by_place(LastKRanker(), options),
        "random_k": _random_k,
    }
)
