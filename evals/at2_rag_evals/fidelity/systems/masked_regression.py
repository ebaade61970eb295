"""A regression on ablations over masked chunk states: the cheap way to many of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from at2_rag.training.answering.ablation import ablate_by_masking
from at2_rag_evals.fidelity.masks import FIT_KEEP, FIT_MASKS, MaskPlan
from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import ItemScores
from at2_rag_evals.fidelity.systems.sparse_fit import fit_settings, sparse_fit
from at2_rag_evals.rankers.base import ChunkScores


class MaskedRegressionSystem:
    """Fits the Lasso of `regression_32` to the same masks, read over chunk states computed once.

    Args:
        reader: Whose model reads.
        plan: Draws the masks.
    """

    name = "masked_regression"
    scale: Scale = "additive"
    shares_are_softmax = False

    def __init__(self, reader: RemovalReader, plan: MaskPlan) -> None:
        self._reader, self._plan = reader, plan
        self.settings: Mapping[str, object] = {
            **reader.settings,
            **fit_settings(),
            "masks": FIT_MASKS,
            "keep": FIT_KEEP,
            "held": plan.held,
            "seed": plan.seed,
        }

    def prepare(self) -> None:
        """Load the model.

        Raises:
            UnsupportedModelError: If its family can't read chunks independently.
        """
        self._reader.model.scoring_model.check_independent()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the coefficients."""
        masks = self._plan.split(item).fitted
        start = time.perf_counter()
        model = self._reader.model
        prompt = model.prompts.independent(item.query, item.chunks)
        found = ablate_by_masking(model, prompt, answer, masks)
        tokens = found.token_logits.shape[1]
        values = sparse_fit(masks, found.logit_probabilities, tokens=tokens)
        return ItemScores(ChunkScores(values), time.perf_counter() - start)
