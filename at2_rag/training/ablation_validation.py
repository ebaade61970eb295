"""Cross-validation over ablations: which design predicts best what removing chunks does.

Two figures a design, both out of fold. *nDCG@10* over the chunks that mattered, those whose
absence alone costs the answer at least `LEAST_DROP`: what pruning needs. *Faithfulness*: the mean
correlation between predicted and measured effects over an item's random masks (the linear
datamodeling score; S. M. Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError
from at2_rag.features import FeatureSpec
from at2_rag.training.fit import LinearFit, fit_listwise, fit_mixed, fit_pearson
from at2_rag.training.losses import AblationData, Floats, ListwiseData
from at2_rag.training.store import ShardAblations
from at2_rag.training.validation import feature_matrix, ndcg_at_10, rounded

LEAST_DROP = 0.1
"""Nats a token of the answer that a chunk's absence costs if the chunk mattered."""

MIXED_SHARE = 0.3
"""The Pearson loss's part of the mixed objective."""

Objective = Literal["drops", "pearson", "evidence", "mixed"]


@dataclass(frozen=True, slots=True)
class AblationCandidate:
    """A design.

    Attributes:
        spec: Its features.
        depth: Layers in use.
        ridge: Penalty of the fit.
        objective: "drops" (listwise, in proportion to what each chunk's absence costs), "pearson"
            (over all masks), "evidence" (listwise over gold labels) or "mixed" (the last two).
    """

    spec: FeatureSpec
    depth: int
    ridge: float
    objective: Objective


@dataclass(frozen=True, slots=True)
class AblationResult:
    """Out-of-fold figures of a candidate, each the macro mean over sources.

    Attributes:
        candidate: The design.
        ndcg: nDCG@10 over the chunks that mattered.
        by_source: The same for each source.
        faithfulness: Mean correlation over random masks; NaN where no sample has three that say
            something.
        faithfulness_by_source: The same for each source.
    """

    candidate: AblationCandidate
    ndcg: float
    by_source: Mapping[str, float]
    faithfulness: float
    faithfulness_by_source: Mapping[str, float]

    def figures(self) -> dict[str, Any]:
        """Return objective and figures as JSON-ready values, rounded."""
        return {
            "objective": self.candidate.objective,
            "ndcg_at_10": round(self.ndcg, 4),
            "by_source": rounded(self.by_source),
            "faithfulness": None if isnan(self.faithfulness) else round(self.faithfulness, 4),
            "faithfulness_by_source": rounded(self.faithfulness_by_source),
        }


@dataclass(frozen=True, slots=True, eq=False)
class AblationSamples:
    """Collected samples, ready to fit.

    Attributes:
        collected: Features and ablations.
        sources: Each sample's data set.
        labels: [sum of counts] bool, gold or not; None where labels aren't to be used.
        masks: Each sample's masks, [M, S].
        effects: Each sample's logit-probabilities, [M].
        drops: [sum of counts] float64, what each chunk's absence costs, in nats a token.
    """

    collected: ShardAblations
    sources: tuple[str, ...]
    labels: npt.NDArray[np.bool_] | None
    masks: tuple[npt.NDArray[np.bool_], ...]
    effects: tuple[npt.NDArray[np.float64], ...]
    drops: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls,
        collected: ShardAblations,
        sources: Sequence[str],
        labels: npt.NDArray[np.bool_] | None = None,
    ) -> AblationSamples:
        """Take collected arrays apart into samples."""
        ends = np.cumsum(collected.mask_counts)
        starts = ends - collected.mask_counts
        means = collected.mean_log_probabilities.astype(np.float64)
        effects = collected.logit_probabilities.astype(np.float64)
        return cls(
            collected,
            tuple(sources),
            labels,
            tuple(collected.masks_of_samples()),
            tuple(effects[start:end] for start, end in zip(starts, ends, strict=True)),
            np.concatenate(
                [
                    means[start] - means[start + 1 : start + 1 + chunks]
                    for start, chunks in zip(starts, collected.counts, strict=True)
                ]
            ),
        )

    @property
    def mattered(self) -> npt.NDArray[np.bool_]:
        """For each chunk whether its absence alone costs the answer at least `LEAST_DROP`."""
        return self.drops >= LEAST_DROP

    def fit(
        self,
        matrix: Floats,
        candidate: AblationCandidate,
        samples: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float64],
    ) -> LinearFit:
        """Fit a design.

        Args:
            matrix: [sum of counts, F], the design's features.
            candidate: The design.
            samples: [I] bool, which to fit on.
            weights: [I] float64, of the samples in the loss.

        Raises:
            InputError: If the objective needs gold labels and there are none, or the samples say
                nothing about it.
        """
        objective, counts = candidate.objective, self.collected.counts
        if objective in ("evidence", "mixed") and self.labels is None:
            raise InputError(
                f"the objective {objective!r} needs gold labels; pass labelled examples"
            )
        relevance = (
            np.maximum(self.drops, 0) if objective == "drops" else np.asarray(self.labels, float)
        )
        ablations = AblationData(matrix, counts, weights, self.masks, self.effects)
        if objective == "pearson":
            return fit_pearson(ablations.take(samples), ridge=candidate.ridge)
        starts = np.cumsum(counts) - counts
        told = samples & (np.add.reduceat(relevance, starts) > 0)
        if not told.any():
            raise InputError(f"no sample tells anything about {objective!r}; pass more examples")
        listwise = ListwiseData(matrix, relevance, counts, weights).take(told)
        if objective == "mixed":
            return fit_mixed(
                listwise, ablations.take(samples), ridge=candidate.ridge, share=MIXED_SHARE
            )
        return fit_listwise(listwise, ridge=candidate.ridge)


def faithfulness(samples: AblationSamples, scores: npt.NDArray[np.float64]) -> list[float]:
    """Return for each sample the correlation of predicted and measured effects of random masks.

    The predicted effect of a mask is the sum of the kept chunks' scores.

    Returns:
        One number in [-1, 1] a sample; NaN where the masks are fewer than three or all effects or
        predictions alike.
    """
    values = []
    ends = np.cumsum(samples.collected.counts)
    for masks, effects, end in zip(samples.masks, samples.effects, ends, strict=True):
        chunks = masks.shape[1]
        predicted = masks[chunks + 1 :] @ scores[end - chunks : end]
        measured = effects[chunks + 1 :]
        if len(measured) < 3 or np.ptp(predicted) < 1e-12 or np.ptp(measured) < 1e-12:
            values.append(float("nan"))
        else:
            values.append(float(np.corrcoef(predicted, measured)[0, 1]))
    return values


def cross_validate_ablations(
    samples: AblationSamples,
    folds: npt.NDArray[np.int64],
    candidates: Sequence[AblationCandidate],
    weights: npt.NDArray[np.float64],
    *,
    part: npt.NDArray[np.bool_] | None = None,
) -> Iterator[AblationResult]:
    """Yield the out-of-fold figures of each candidate.

    Args:
        samples: The samples.
        folds: Each sample's fold.
        candidates: What to try.
        weights: Of the samples in the loss.
        part: [I] bool, samples that may be fitted on, for a learning curve; None for all. All
            are judged.

    Raises:
        InputError: If no sample has a chunk that mattered beside one that didn't.
    """
    counts, names = samples.collected.counts, np.array(samples.sources)
    mattered = samples.mattered
    starts = np.cumsum(counts) - counts
    some = np.add.reduceat(mattered.astype(int), starts)
    judged = (some > 0) & (some < counts)
    if not judged.any():
        raise InputError(
            f"of {len(counts)} samples none has a chunk whose absence costs the answer "
            f"{LEAST_DROP} nats a token beside one that doesn't; pass more examples"
        )
    for candidate in candidates:
        matrix = feature_matrix(samples.collected, candidate.spec, candidate.depth)
        scores = np.zeros(len(matrix))
        for fold in np.unique(folds):
            held = folds == fold
            fit = samples.fit(matrix, candidate, ~held if part is None else ~held & part, weights)
            rows = np.repeat(held, counts)
            scores[rows] = matrix[rows] @ fit.weight + fit.bias
        quality = np.full(len(counts), np.nan)
        rows = np.repeat(judged, counts)
        quality[judged] = ndcg_at_10(scores[rows], mattered[rows], counts[judged])
        ndcg = _by_source(quality, names)
        faithful = _by_source(np.array(faithfulness(samples, scores)), names)
        yield AblationResult(
            candidate,
            float(np.mean(list(ndcg.values()))),
            ndcg,
            float(np.mean(list(faithful.values()))) if faithful else float("nan"),
            faithful,
        )


def _by_source(values: npt.NDArray[np.float64], names: npt.NDArray[np.str_]) -> dict[str, float]:
    """Return each source's mean over its samples that have a value."""
    known = ~np.isnan(values)
    return {
        str(name): float(values[known & (names == name)].mean()) for name in np.unique(names[known])
    }
