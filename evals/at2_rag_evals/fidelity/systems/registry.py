"""The systems of the fidelity eval, by name; those that aren't rankers are one line each here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from at2_rag_evals.lazy import maker
from at2_rag_evals.rankers.registry import BASELINES, RankerOptions, make_ranker

if TYPE_CHECKING:  # so that names of systems are known without numpy and torch
    from at2_rag_evals.fidelity.masks import MaskPlan
    from at2_rag_evals.fidelity.removal import RemovalReader
    from at2_rag_evals.fidelity.systems.base import FidelitySystem
    from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads

HEAD_COUNTS: Mapping[str, int] = MappingProxyType({"best_head": 1, "heads_8": 8, "heads_16": 16})
RANKED = (*BASELINES, "all_heads_mean", "at2", "at2_joint")
"""Rankers that are judged for fidelity, too."""


@dataclass(frozen=True)
class SystemOptions:
    """Options of systems; each takes those that it has an argument for.

    Attributes:
        reader: Reads with sources removed.
        plan: Draws masks.
        ranker: Options of rankers.
        answer_weights: The head weights of `at2_answer`; None for those shipped for the model.
        train: Training files that heads are chosen on.
    """

    reader: RemovalReader
    plan: MaskPlan
    ranker: RankerOptions
    answer_weights: str | None = None
    train: Sequence[Path] = ()

    @property
    def model(self) -> str | None:
        """The scoring model; None for the default model."""
        return self.ranker.model

    @cached_property
    def heads(self) -> EvidenceHeads:
        """What all systems of chosen heads choose from."""
        from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads

        return EvidenceHeads(self.train, model=self.model, seed=self.ranker.seed)


Maker = Callable[[SystemOptions], "FidelitySystem"]


_SYSTEMS = "fidelity.systems"


def _answer(name: str, **arguments: Any) -> Maker:
    target = f"{_SYSTEMS}.answer_attention:AnswerAttentionSystem"
    return maker(target, "model", "answer_weights", name=name, **arguments)


SYSTEMS: Mapping[str, Maker] = MappingProxyType(
    {
        **{
            name: maker(f"{_SYSTEMS}.query_heads:QueryHeadsSystem", "heads", name=name, count=count)
            for name, count in HEAD_COUNTS.items()
        },
        "answer_heads_mean": _answer("answer_heads_mean", answer_weights="uniform"),
        "at2_answer": _answer("at2_answer"),
        "gold": maker(f"{_SYSTEMS}.base:GoldSystem"),
        "leave_one_out": maker(f"{_SYSTEMS}.ablations:LeaveOneOutSystem", "reader"),
        "regression_32": maker(f"{_SYSTEMS}.ablations:RegressionSystem", "reader", "plan"),
        "masked_regression": maker(
            f"{_SYSTEMS}.ablations:MaskedRegressionSystem", "reader", "plan"
        ),
    }
)


def make_system(name: str, options: SystemOptions) -> FidelitySystem:
    """Make the system of this name; what it lacks to run is known before it scores.

    Raises:
        AT2Error: If a model, head weights or a training file can't be used.
        ImportError: If a package that it needs isn't installed.
    """
    from at2_rag_evals.fidelity.systems.ranked import QuestionAttentionSystem, RankerSystem
    from at2_rag_evals.rankers.at2 import AT2Ranker

    if name in SYSTEMS:
        return SYSTEMS[name](options)
    ranker = make_ranker(name, options.ranker)
    if isinstance(ranker, AT2Ranker):
        return QuestionAttentionSystem(ranker)
    return RankerSystem(ranker)
