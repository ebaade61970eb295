"""Regressions of what masks do to an answer: ContextCite's estimator, by removal or masking."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from at2_rag.training.answering.ablation import ablate_by_masking
from at2_rag_evals.extras import import_extra
from at2_rag_evals.fidelity.masks import FIT_KEEP, FIT_MASKS, MaskPlan
from at2_rag_evals.fidelity.removal import RemovalReader, total_seconds
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.rankers.base import ItemScores

PENALTY = 0.01


def sparse_fit(
    masks: npt.NDArray[np.bool_], effects: npt.ArrayLike, *, tokens: int
) -> tuple[float, ...]:
    """Return each source's coefficient in a Lasso of an answer's effects on masks.

    As in B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS
    2024, section 3 and their package's defaults: masks are standardised, effects divided by the
    answer's number of tokens, the penalty is 0.01, and coefficients are scaled back.

    Args:
        masks: [M, S] bool, True for sources that were kept.
        effects: The answer's logit-probability under each mask, [M].
        tokens: How many tokens the answer has.
    """
    linear_model = import_extra("sklearn.linear_model")
    kept = masks.astype(np.float64)
    spread = kept.std(0)
    spread[spread == 0] = 1.0  # kept always or never: nothing was seen, the coefficient is 0
    lasso = linear_model.Lasso(alpha=PENALTY, fit_intercept=True)
    lasso.fit((kept - kept.mean(0)) / spread, np.asarray(effects, dtype=np.float64) / tokens)
    return tuple(float(value) for value in lasso.coef_ / spread * tokens)


class RegressionSystem(FidelitySystem):
    """Reads the answer under 32 random masks, none of them held, and fits a Lasso.

    B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS 2024,
    with the item's sources for theirs. Items of four to six have fewer masks: 7, 15 and 31.

    Args:
        reader: Reads with sources removed.
        plan: Draws the masks.
    """

    name = "regression_32"

    def __init__(self, reader: RemovalReader, plan: MaskPlan) -> None:
        import_extra("sklearn")
        self._reader, self._plan = reader, plan
        self.settings = {
            **reader.settings,
            "penalty": PENALTY,
            "scikit-learn": version("scikit-learn"),
            "masks": FIT_MASKS,
            "keep": FIT_KEEP,
            "held": plan.held,
            "seed": plan.seed,
        }

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the coefficients."""
        masks = self._plan.split(item).fitted
        readings = self._reader.read(item, answer, masks)
        effects = [reading.logit_probability for reading in readings]
        values = sparse_fit(masks, effects, tokens=readings[0].tokens)
        return ItemScores(values, seconds=total_seconds(readings))


class MaskedRegressionSystem(RegressionSystem):
    """The same fit to the same masks, which are read over chunk states computed once: cheaper.

    Args:
        reader: Whose model reads.
        plan: Draws the masks.
    """

    name = "masked_regression"

    def prepare(self) -> None:
        """Load the model.

        Raises:
            UnsupportedModelError: If its family can't read chunks independently.
        """
        self._reader.model.scoring_model.check_independent()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the coefficients."""
        masks = self._plan.split(item).fitted
        ablations = ablate_by_masking(self._reader.model, item.query, item.chunks, answer, masks)
        tokens = ablations.token_logits.shape[1]
        return ItemScores(sparse_fit(masks, ablations.logit_probabilities, tokens=tokens))
