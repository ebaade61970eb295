"""Cross-validation over ablations: which design predicts best what removing chunks does.

Two figures a design, both out of fold. *nDCG@10* over the gold chunks, or where labels aren't to be
used over those that mattered, which add at least `LEAST_CONTRIBUTION` to the likelihood of the
question (for weights that attribute answers: of the answer): what pruning needs.
*Faithfulness*: the mean correlation between predicted and measured effects on the answer over an
item's random masks (the linear datamodeling score; S. M. Park et al., "TRAK: Attributing Model
Behavior at Scale", ICML 2023), where a mask's predicted effect is the sum of the kept chunks'
scores, or of their *shares*, the softmax over the item's scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec
from at2_rag.training.answering.ablation import Ablations, contributions, drops
from at2_rag.training.collection.store import ShardAblations
from at2_rag.training.fitting.fit import LinearFit, fit_listwise, fit_pearson
from at2_rag.training.fitting.losses import AblationData, Floats, ListwiseData
from at2_rag.training.fitting.validation import FEWEST_CHUNKS, feature_matrix, ndcg_at_10, rounded

LEAST_CONTRIBUTION = 1.0
"""Nats that a chunk adds to a text's log-likelihood if it mattered."""

MIXED_SHARE = 0.3
"""The contributions' part of the mixed objective."""

Objective = Literal["contributions", "drops", "pearson", "evidence", "mixed"]


@dataclass(frozen=True, slots=True)
class AblationCandidate:
    """A design.

    Attributes:
        spec: Its features.
        depth: Layers in use.
        ridge: Penalty of the fit.
        objective: "contributions" (listwise, in proportion to what each chunk adds to the
            likelihood of the question, or of the answer), "drops" (listwise, in proportion to what
            each chunk's absence costs the answer), "pearson" (over all masks), "evidence" (listwise
            over gold labels) or "mixed" (listwise, evidence and contributions).
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
        faithfulness: Mean correlation over random masks, of scores as they are; NaN where no sample
            has three that say something.
        faithfulness_by_source: The same for each source.
        share_faithfulness: Mean correlation over random masks, of shares.
        quality: [I] float64, nDCG@10 of each sample; NaN where it isn't judged.
    """

    candidate: AblationCandidate
    ndcg: float
    by_source: Mapping[str, float]
    faithfulness: float
    faithfulness_by_source: Mapping[str, float]
    share_faithfulness: float
    quality: npt.NDArray[np.float64] = field(repr=False, compare=False)

    def figures(self) -> dict[str, Any]:
        """Return objective and figures as JSON-ready values, rounded."""
        return {
            "objective": self.candidate.objective,
            "ndcg_at_10": round(self.ndcg, 4),
            "by_source": rounded(self.by_source),
            "faithfulness": None if isnan(self.faithfulness) else round(self.faithfulness, 4),
            "faithfulness_by_source": rounded(self.faithfulness_by_source),
            "share_faithfulness": (
                None if isnan(self.share_faithfulness) else round(self.share_faithfulness, 4)
            ),
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
        drops: [sum of counts] float64, what each chunk's absence costs the answer, in nats a
            token.
        contributions: [sum of counts] float64, what each chunk adds to the log-likelihood of
            the question, or of the answer, in nats.
        unlabelled: [sum of counts] bool, chunks whose label is a guess: labels are neither fitted
            to nor judged there. May be None, for none.
    """

    collected: ShardAblations
    sources: tuple[str, ...]
    labels: npt.NDArray[np.bool_] | None
    masks: tuple[npt.NDArray[np.bool_], ...]
    effects: tuple[npt.NDArray[np.float64], ...]
    drops: npt.NDArray[np.float64]
    contributions: npt.NDArray[np.float64]
    unlabelled: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        collected: ShardAblations,
        sources: Sequence[str],
        labels: npt.NDArray[np.bool_] | None = None,
        *,
        unlabelled: npt.NDArray[np.bool_] | None = None,
        question: bool = True,
    ) -> AblationSamples:
        """Take collected arrays apart into samples.

        Args:
            collected: The arrays.
            sources: Each sample's data set.
            labels: [sum of counts] bool, gold or not; None where labels aren't to be used.
            unlabelled: [sum of counts] bool, chunks whose label is a guess; None for none.
            question: Whether contributions are those to the question; else to the answer.
        """
        masks = collected.masks_of_samples()
        answers = collected.token_logits_of_samples()
        told = collected.query_logits_of_samples() if question else answers
        ablations = [Ablations(*own) for own in zip(masks, answers, strict=True)]
        return cls(
            collected,
            tuple(sources),
            labels,
            tuple(masks),
            tuple(own.logit_probabilities for own in ablations),
            np.concatenate([drops(own) for own in ablations]),
            np.concatenate([contributions(*own) for own in zip(masks, told, strict=True)]),
            unlabelled,
        )

    @property
    def mattered(self) -> npt.NDArray[np.bool_]:
        """For each chunk whether it is gold, or without labels adds `LEAST_CONTRIBUTION`."""
        return self.contributions >= LEAST_CONTRIBUTION if self.labels is None else self.labels

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
        if objective == "pearson":
            ablations = AblationData(matrix, counts, weights, self.masks, self.effects)
            return fit_pearson(ablations.take(samples), ridge=candidate.ridge)
        rows = np.ones(len(matrix), dtype=bool)
        if objective in ("evidence", "mixed") and self.unlabelled is not None:
            rows = ~self.unlabelled
        relevance, counts = self._relevance(objective, rows), _counted(rows, counts)
        told = samples & (np.add.reduceat(relevance, np.cumsum(counts) - counts) > 0)
        if not told.any():
            raise InputError(f"no sample tells anything about {objective!r}; pass more examples")
        listwise = ListwiseData(matrix[rows], relevance, counts, weights).take(told)
        return fit_listwise(listwise, ridge=candidate.ridge)

    def _relevance(
        self, objective: Objective, rows: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Return how much each of the chunks matters, at least 0, on a scale of a sample's own.

        Labels say nothing of samples whose chunks are all gold.
        """
        if objective == "drops":
            return np.maximum(self.drops[rows], 0)
        told = np.maximum(self.contributions[rows], 0)
        if objective == "contributions":
            return told
        counts = _counted(rows, self.collected.counts)
        gold = np.asarray(self.labels, dtype=np.float64)[rows]
        totals = np.add.reduceat(gold, np.cumsum(counts) - counts)
        gold *= np.repeat(totals < counts, counts)
        if objective == "evidence":
            return _in_sum(gold, counts)
        return (1 - MIXED_SHARE) * _in_sum(gold, counts) + MIXED_SHARE * _in_sum(told, counts)


def _counted(rows: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many of each sample's chunks hold in a mask over all of them."""
    counted: npt.NDArray[np.int64] = np.add.reduceat(
        rows.astype(np.int64), np.cumsum(counts) - counts
    )
    return counted


def _in_sum(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return each value's part of its sample's sum; 0 where that is 0."""
    totals = np.add.reduceat(values, np.cumsum(counts) - counts)
    shares: npt.NDArray[np.float64] = values / np.repeat(np.where(totals > 0, totals, 1), counts)
    return shares


def softmax_by_sample(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the softmax over each sample's values, [sum of counts]."""
    starts = np.cumsum(counts) - counts
    exponents = np.exp(values - np.repeat(np.maximum.reduceat(values, starts), counts))
    totals = np.add.reduceat(exponents, starts)
    shares: npt.NDArray[np.float64] = exponents / np.repeat(totals, counts)
    return shares


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
        predicted = masks[chunks + 2 :] @ scores[end - chunks : end]
        measured = effects[chunks + 2 :]
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

    nDCG is that of samples of `FEWEST_CHUNKS` chunks or more, as in `cross_validate`.

    Args:
        samples: The samples.
        folds: Each sample's fold.
        candidates: What to try.
        weights: Of the samples in the loss.
        part: [I] bool, samples that may be fitted on, for a learning curve; None for all. All
            are judged.

    Raises:
        InputError: If no sample of `FEWEST_CHUNKS` chunks or more has one that mattered beside one
            that didn't.
    """
    counts, names = samples.collected.counts, np.array(samples.sources)
    known = np.ones(len(samples.mattered), dtype=bool)
    if samples.labels is not None and samples.unlabelled is not None:
        known = ~samples.unlabelled
    mattered, ranked = samples.mattered & known, _counted(known, counts)
    some = _counted(mattered, counts)
    judged = (some > 0) & (some < ranked) & (ranked >= FEWEST_CHUNKS)
    if not judged.any():
        raise InputError(
            f"of {len(counts)} samples none has a chunk that matters (is gold, or adds "
            f"{LEAST_CONTRIBUTION} nats) beside one that doesn't, and {FEWEST_CHUNKS} chunks or "
            "more; pass more examples"
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
        rows = np.repeat(judged, counts) & known
        quality[judged] = ndcg_at_10(scores[rows], mattered[rows], ranked[judged])
        ndcg = _by_source(quality, names)
        faithful = _by_source(np.array(faithfulness(samples, scores)), names)
        shares = softmax_by_sample(scores, counts)
        of_shares = _by_source(np.array(faithfulness(samples, shares)), names)
        yield AblationResult(
            candidate,
            float(np.mean(list(ndcg.values()))),
            ndcg,
            float(np.mean(list(faithful.values()))) if faithful else float("nan"),
            faithful,
            float(np.mean(list(of_shares.values()))) if of_shares else float("nan"),
            quality,
        )


def _by_source(values: npt.NDArray[np.float64], names: npt.NDArray[np.str_]) -> dict[str, float]:
    """Return each source's mean over its samples that have a value."""
    known = ~np.isnan(values)
    return {
        str(name): float(values[known & (names == name)].mean()) for name in np.unique(names[known])
    }
