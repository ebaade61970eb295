"""Makes the systems of the fidelity eval by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from at2_rag.readout.head_weights import UNIFORM
from at2_rag_evals.fidelity.masks import MaskPlan
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.request import HEAD_COUNTS, FidelityRequest
from at2_rag_evals.fidelity.systems.ablations import (
    LeaveOneOutSystem,
    MaskedRegressionSystem,
    RegressionSystem,
)
from at2_rag_evals.fidelity.systems.answer_attention import AnswerAttentionSystem
from at2_rag_evals.fidelity.systems.base import FidelitySystem, GoldSystem
from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads, QueryHeadsSystem
from at2_rag_evals.fidelity.systems.ranked import QuestionAttentionSystem, RankerSystem
from at2_rag_evals.rankers.at2 import AT2Ranker
from at2_rag_evals.rankers.registry import RankerOptions, make_ranker


def make_systems(
    request: FidelityRequest, reader: RemovalReader, plan: MaskPlan
) -> list[FidelitySystem]:
    """Make the systems of a request; what one lacks to run is an error before any scores."""
    model = request.model

    @cache
    def heads() -> EvidenceHeads:
        return EvidenceHeads(request.train, model=model, seed=request.seed)

    table: dict[str, Callable[[], FidelitySystem]] = {
        "answer_heads_mean": partial(AnswerAttentionSystem, "answer_heads_mean", model, UNIFORM),
        "at2_answer": partial(AnswerAttentionSystem, "at2_answer", model, request.answer_weights),
        "gold": GoldSystem,
        "leave_one_out": partial(LeaveOneOutSystem, reader),
        "regression_32": partial(RegressionSystem, reader, plan),
        "masked_regression": partial(MaskedRegressionSystem, reader, plan),
    }
    systems: list[FidelitySystem] = []
    for name in request.judged:
        if name in HEAD_COUNTS:
            systems.append(QueryHeadsSystem(name, heads(), HEAD_COUNTS[name]))
        elif name in table:
            systems.append(table[name]())
        else:
            ranker = make_ranker(name, RankerOptions.of(request))
            if isinstance(ranker, AT2Ranker):
                systems.append(QuestionAttentionSystem(ranker))
            else:
                systems.append(RankerSystem(ranker))
    return systems
