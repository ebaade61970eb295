"""Makes systems by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from at2_rag.readout.head_weights import UNIFORM
from at2_rag_evals.fidelity.masks import MaskPlan
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.systems.answer_attention import AnswerAttentionSystem
from at2_rag_evals.fidelity.systems.base import FidelitySystem, RankerSystem
from at2_rag_evals.fidelity.systems.gold import GoldSystem
from at2_rag_evals.fidelity.systems.leave_one_out import LeaveOneOutSystem
from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads, QueryHeadsSystem
from at2_rag_evals.fidelity.systems.question_attention import QuestionAttentionSystem
from at2_rag_evals.fidelity.systems.regression import MaskedRegressionSystem, RegressionSystem
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
        answer_weights: The head weights of `at2_answer`; None for those shipped for the model.
        train: Training files that heads are chosen on.
    """

    reader: RemovalReader
    plan: MaskPlan
    ranker: RankerOptions = field(default_factory=RankerOptions)
    answer_weights: str | None = None
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
        if name not in HEAD_COUNTS:
            systems.append(_system(name, options))
        elif heads is not None:
            systems.append(QueryHeadsSystem(name, heads, HEAD_COUNTS[name]))
    return systems


def _system(name: str, options: SystemOptions) -> FidelitySystem:
    if name in _SYSTEMS:
        return _SYSTEMS[name](options)
    ranker = make_ranker(name, options.ranker)
    if isinstance(ranker, AT2Ranker):
        return QuestionAttentionSystem(ranker)
    return RankerSystem(ranker)


def _answer_attention(
    name: str, options: SystemOptions, head_weights: str | None
) -> AnswerAttentionSystem:
    return AnswerAttentionSystem(name, options.ranker.model, head_weights=head_weights)


_SYSTEMS: Mapping[str, Callable[[SystemOptions], FidelitySystem]] = MappingProxyType(
    {
        "answer_heads_mean": lambda own: _answer_attention("answer_heads_mean", own, UNIFORM),
        "at2_answer": lambda own: _answer_attention("at2_answer", own, own.answer_weights),
        "gold": lambda own: GoldSystem(),
        "leave_one_out": lambda own: LeaveOneOutSystem(own.reader),
        "regression_32": lambda own: RegressionSystem(own.reader, own.plan),
        "masked_regression": lambda own: MaskedRegressionSystem(own.reader, own.plan),
    }
)
