"""How well weights over few layers rank beside weights over many: out of fold, and on dev."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from at2_rag.reading.features import FeatureSpec, Pass, Quantity
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.collection.gathered_ablations import GatheredAblations
from at2_rag.training.fitting.ablation_validation import (
    AblationCandidate,
    AblationResult,
    Objective,
    cross_validate_ablations,
)
from at2_rag.training.fitting.dev_figures import DevFigures, DevSet
from at2_rag.training.fitting.validation import RIDGES, feature_matrix
from at2_rag_evals.bootstrap import Estimate, macro_sample, resample_means

MARGIN = 0.0075
"""Macro nDCG@10 that a design may be behind the best one and still not be inferior."""

QUANTITY: Quantity = "log_mass"
OBJECTIVE: Objective = "mixed"


@dataclass(frozen=True, slots=True)
class Design:
    """What is read of the model: the passes, and the layers in use."""

    passes: tuple[Pass, ...]
    depth: int

    @property
    def name(self) -> str:
        """The design in words."""
        return f"{self.depth}, {' + '.join(self.passes)}"


@dataclass(frozen=True, slots=True)
class DesignQuality:
    """How well a design ranks.

    Attributes:
        design: The design.
        ridge: The ridge of `RIDGES` with the highest macro nDCG@10 out of fold.
        ndcg: That figure, with its interval.
        by_source: nDCG@10 out of fold of each source.
        less_best: `ndcg` less that of the best design, paired.
        dev: Of the design fitted on all examples; None without dev examples.
    """

    design: Design
    ridge: float
    ndcg: Estimate
    by_source: Mapping[str, float]
    less_best: Estimate
    dev: DevFigures | None

    @property
    def is_not_inferior(self) -> bool:
        """Whether the interval of the difference to the best design lies above -`MARGIN`."""
        low = self.less_best.low
        return self.less_best.mean >= 0 or (low is not None and low > -MARGIN)


def cross_validate_designs(
    gathered: GatheredAblations, designs: Sequence[Design]
) -> Iterator[AblationResult]:
    """Yield each design's out-of-fold figures with its best ridge.

    Args:
        gathered: Labelled samples, collected at least as deep as the deepest design.
        designs: The designs.
    """
    for design in designs:
        spec = FeatureSpec(QUANTITY, design.passes)
        tried = [AblationCandidate(spec, design.depth, ridge, OBJECTIVE) for ridge in RIDGES]
        found = cross_validate_ablations(
            gathered.samples, gathered.fold_of, tried, gathered.weights
        )
        yield max(found, key=lambda result: result.ndcg)


def summarise_designs(
    gathered: GatheredAblations,
    results: Sequence[AblationResult],
    dev: DevSet | None,
    *,
    heads: int,
    seed: int,
) -> list[DesignQuality]:
    """Compare designs with the best of them, and judge each on dev.

    Args:
        gathered: The samples.
        results: What `cross_validate_designs` gave.
        dev: Dev examples; may be None.
        heads: The model's query heads a layer.
        seed: Of the bootstrap.
    """
    quality = np.stack([result.quality for result in results], axis=1)
    judged = ~np.isnan(quality[:, 0])
    names, groups = np.array(gathered.samples.sources), np.array(gathered.groups)
    rng = np.random.default_rng(seed)
    sample = macro_sample(
        [
            resample_means(quality[own], groups[own].tolist(), rng=rng)
            for own in (judged & (names == name) for name in np.unique(names[judged]))
        ]
    )
    best = int(np.argmax(sample.means))
    rows = []
    for place, result in enumerate(results):
        candidate = result.candidate
        weights = None if dev is None else _fit(gathered, candidate, heads=heads)
        rows.append(
            DesignQuality(
                Design(candidate.spec.passes, candidate.depth),
                candidate.ridge,
                sample.estimate(place),
                result.by_source,
                sample.estimate(place, minus=best),
                None if dev is None or weights is None else dev.judge(weights),
            )
        )
    return rows


def stand_in_weights(design: Design, *, heads: int) -> HeadWeights:
    """Return weights of a design that are all zero: time and memory don't depend on them."""
    zeros = np.zeros((len(design.passes), design.depth, heads), dtype=np.float32)
    return HeadWeights(zeros, 0.0, FeatureSpec(QUANTITY, design.passes))


def _fit(gathered: GatheredAblations, candidate: AblationCandidate, *, heads: int) -> HeadWeights:
    samples = gathered.samples
    matrix = feature_matrix(samples.collected, candidate.spec, candidate.depth)
    everything: npt.NDArray[np.bool_] = np.ones(len(samples.sources), dtype=bool)
    fit = samples.fit(matrix, candidate, everything, gathered.weights)
    design = Design(candidate.spec.passes, candidate.depth)
    zeros = stand_in_weights(design, heads=heads)
    return replace(
        zeros, weight=fit.weight.reshape(zeros.weight.shape).astype(np.float32), bias=fit.bias
    )
