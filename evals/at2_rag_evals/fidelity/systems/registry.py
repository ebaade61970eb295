"""Makes systems by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from at2_rag_evals.fidelity.masks import MaskPlan
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.systems.attention import AttentionSystem
from at2_rag_evals.fidelity.systems.base import FidelitySystem, RankerSystem
from at2_rag_evals.fidelity.systems.gold import GoldSystem
from at2_rag_evals.fidelity.systems.leave_one_out import LeaveOneOutSystem
from at2_rag_evals.fidelity.systems.masked_regression import MaskedRegressionSystem
from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads, QueryHeadsSystem
from at2_rag_evals.fidelity.systems.regression import RegressionSystem
from at2_rag_evals.rankers import RankerOptions, make_ranker
from at2_rag_evals.rankers.at2 import AT2Ranker

HEAD_COUNTS = {"best_head": 1, "heads_8": 8, "heads_16": 16}


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """What systems can be told.

    Attributes:
        reader: Reads with chunks removed.
        plan: Draws masks.
        ranker: What rankers can be told.
        train: Training files that heads are chosen on.
    """

    reader: RemovalReader
    plan: MaskPlan
    ranker: RankerOptions = field(default_factory=RankerOptions)
    train: Sequence[Path] = ()


def make_systems(names: Sequence[str], options: SystemOptions) -> list[FidelitySystem]:
    """Make systems by name; what they lack to run is found out here.

    Those of chosen heads share one choice, and are left out where there are no training files.
    """
    heads = None
    if options.train and not HEAD_COUNTS.keys().isdisjoint(names):
        heads = EvidenceHeads(options.train, model=options.ranker.model, seed=options.ranker.seed)
    systems: list[FidelitySystem] = []
    for name in names:
        if name in HEAD_COUNTS:
            if heads is not None:
                systems.append(QueryHeadsSystem(name, heads, HEAD_COUNTS[name]))
        elif name == GoldSystem.name:
            systems.append(GoldSystem())
        elif name == LeaveOneOutSystem.name:
            systems.append(LeaveOneOutSystem(options.reader))
        elif name == RegressionSystem.name:
            systems.append(RegressionSystem(options.reader, options.plan))
        elif name == MaskedRegressionSystem.name:
            systems.append(MaskedRegressionSystem(options.reader, options.plan))
        else:
            ranker = make_ranker(name, options.ranker)
            if isinstance(ranker, AT2Ranker):
                systems.append(AttentionSystem(ranker))
            else:
                systems.append(RankerSystem(ranker))
    return systems
