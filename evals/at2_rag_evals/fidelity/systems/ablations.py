"""Systems that ablate sources: leave-one-out, and ContextCite's regression."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from at2_rag.training.answering.ablation import ablate_by_masking, leave_one_out
from at2_rag_evals.extras import import_extra
from at2_rag_evals.fidelity.masks import FIT_KEEP, FIT_MASKS, MaskPlan
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.rankers.base import ItemScores

PENALTY = 0.01


class LeaveOneOutSystem(FidelitySystem):
    """Scores a source by how far the answer's logit-probability falls when it alone is removed.

    The baseline of that name in B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to
    Context", NeurIPS 2024, section 4; S + 1 readings.
    """

    name = "leave_one_out"

    def __init__(self, reader: RemovalReader) -> None:
        self.settings, self._reader = reader.settings, reader

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return how far the answer falls without each source."""
        readings = self._reader.read(item, answer, leave_one_out(len(item.sources)))
        full, *others = (reading.logit_probability for reading in readings)
        falls = tuple(full - other for other in others)
        return ItemScores(falls, seconds=sum(each.seconds for each in readings))


class RegressionSystem(FidelitySystem):
    """Reads the answer under 32 random masks, none of them held, and fits a Lasso.

    ContextCite (B. Cohen-Wang et al., NeurIPS 2024) with the item's sources for its own. Items of
    four to six sources have fewer masks: 7, 15 and 31.
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
        return ItemScores(values, seconds=sum(each.seconds for each in readings))


class MaskedRegressionSystem(RegressionSystem):
    """The same fit to the same masks, which are read over chunk states computed once: cheaper."""

    name = "masked_regression"

    def prepare(self) -> None:
        """Load the model; refuse a family that can't read chunks independently."""
        self._reader.model.scoring_model.check_independent()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the coefficients."""
        masks = self._plan.split(item).fitted
        model, example = self._reader.model, item.example
        prompt = model.scoring_model.prompts.independent(example.query, example.chunks)
        ablations = ablate_by_masking(model, prompt, answer, masks)
        tokens = ablations.token_logits.shape[1]
        return ItemScores(sparse_fit(masks, ablations.logit_probabilities, tokens=tokens))


def sparse_fit(
    masks: npt.NDArray[np.bool_], effects: npt.ArrayLike, *, tokens: int
) -> tuple[float, ...]:
    """Return each source's coefficient in a Lasso of an answer's effects, [M], on masks, [M, S].

    As in ContextCite, section 3 and the package's defaults: masks are standardised, effects divided
    by the answer's number of tokens, the penalty is 0.01, and coefficients are scaled back.
    """
    linear_model = import_extra("sklearn.linear_model")
    kept = masks.astype(np.float64)
    spread = kept.std(0)
    spread[spread == 0] = 1.0  # kept always or never: nothing was seen, the coefficient is 0
    lasso = linear_model.Lasso(alpha=PENALTY, fit_intercept=True)
    lasso.fit((kept - kept.mean(0)) / spread, np.asarray(effects, dtype=np.float64) / tokens)
    return tuple(float(value) for value in lasso.coef_ / spread * tokens)
