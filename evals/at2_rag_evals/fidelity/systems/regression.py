"""A regression on ablations by removal: ContextCite's estimator."""

from __future__ import annotations

from collections.abc import Mapping

from at2_rag_evals.fidelity.masks import FIT_KEEP, FIT_MASKS, MaskPlan
from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import ItemScores
from at2_rag_evals.fidelity.systems.sparse_fit import fit_settings, sparse_fit
from at2_rag_evals.rankers.base import ChunkScores


class RegressionSystem:
    """Reads the answer under 32 random masks, none of them held, and fits a Lasso.

    B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS 2024,
    with the item's sources for theirs. Items of four to six have fewer masks: 7, 15 and 31.

    Args:
        reader: Reads with chunks removed.
        plan: Draws the masks.
    """

    name = "regression_32"
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
        """Do nothing; the reader loads its model when it has to."""

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the coefficients."""
        masks = self._plan.split(item).fitted
        readings = self._reader.read(item, answer, masks)
        effects = [reading.logit_probability for reading in readings]
        values = sparse_fit(masks, effects, tokens=readings[0].tokens)
        return ItemScores(ChunkScores(values), sum(reading.seconds for reading in readings))
