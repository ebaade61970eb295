"""Cross-validation: which features, depth, ridge and objective rank relevant chunks best.

Two figures a design, both out of fold. *nDCG@10* over the gold chunks, or where labels aren't to be
used over those that add at least `LEAST_CONTRIBUTION` to the likelihood of the question (for
weights that attribute answers: of the answer), or where only a teacher's scores are known over the
chunks that it ranks first: what pruning needs. *Faithfulness*, where there are
ablations: the mean correlation between predicted and measured effects on the answer over a
sample's random masks (the linear datamodeling score; S. M. Park et al., "TRAK: Attributing Model
Behavior at Scale", ICML 2023), where a mask's predicted effect is the sum of the kept chunks'
scores, or of their *shares*, the softmax over the sample's scores.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec
from at2_rag.training.fitting.objectives import Objective, fit_objective
from at2_rag.training.fitting.samples import LEAST_CONTRIBUTION, Effects, Samples, sum_by_sample

FEWEST_CHUNKS = 4  # of a sample whose ranking is judged; guessing does too well with fewer

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A readout's design: its features, layers in use, penalty and objective of the fit."""

    spec: FeatureSpec
    depth: int
    ridge: float
    objective: Objective
    key_heads: int | None = None  # most that have weights, where only late features are fitted


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """Out-of-fold figures of a candidate, each the macro mean over sources."""

    candidate: Candidate
    ndcg: float
    by_source: Mapping[str, float]  # nDCG
    faithfulness: float | None  # None without ablations, or without three masks that differ
    faithfulness_by_source: Mapping[str, float]
    share_faithfulness: float | None
    quality: Floats = field(repr=False, compare=False)  # [I], nDCG of each sample; NaN: not judged

    def figures(self) -> dict[str, Any]:
        """Return objective and figures as JSON-ready values, rounded."""
        return {
            "objective": self.candidate.objective,
            "ndcg_at_10": round(self.ndcg, 4),
            "by_source": rounded(self.by_source),
            **rounded({"faithfulness": self.faithfulness}),
            "faithfulness_by_source": rounded(self.faithfulness_by_source),
            **rounded({"share_faithfulness": self.share_faithfulness}),
        }


class CrossValidation:
    """Judges designs out of fold.

    Only samples of `FEWEST_CHUNKS` chunks or more are judged, some of them relevant and some not;
    all are fitted on. A source that has none doesn't count, and a warning is logged that names it.
    """

    def __init__(self, samples: Samples, fold_of: npt.NDArray[np.int64]) -> None:
        self._samples, self._fold_of = samples, fold_of
        self._sources = np.array(samples.sources)
        certain = samples.certain
        self._relevant = samples.relevant & certain
        self._sizes = sum_by_sample(certain.astype(np.int64), samples.counts)
        relevant = sum_by_sample(self._relevant.astype(np.int64), samples.counts)
        self._judged = (relevant > 0) & (relevant < self._sizes) & (self._sizes >= FEWEST_CHUNKS)
        self._rows = np.repeat(self._judged, samples.counts) & certain
        if not self._judged.any():
            raise InputError(
                f"none of the {len(samples.counts)} samples has {FEWEST_CHUNKS} chunks or more "
                f"(the largest has {self._sizes.max(initial=0)}), some of them relevant and some "
                f"not (gold, or adding {LEAST_CONTRIBUTION} nats, or a teacher's best), so "
                "cross-validation has no ranking to judge; pass more examples, with more chunks"
            )
        judged = set(self._sources[self._judged].tolist())
        unjudged = {name: n for name, n in Counter(samples.sources).items() if name not in judged}
        if unjudged:
            _logger.warning(
                "cross-validation leaves out %s: no sample has %d chunks or more, some relevant "
                "and some not, so nothing there is judged; its samples are fitted on all the same",
                ", ".join(f"{name!r} ({n} samples)" for name, n in sorted(unjudged.items())),
                FEWEST_CHUNKS,
            )
        self._built: tuple[FeatureSpec, int] | None = None  # of `_matrix`
        self._matrix = np.zeros((0, 0), dtype=np.float32)

    def judge(self, candidate: Candidate) -> CandidateResult:
        """Return a design's figures."""
        scores = self.scores(candidate)
        quality = np.full(len(self._judged), np.nan)
        quality[self._judged] = ndcg_at_10(
            scores[self._rows], self._relevant[self._rows], self._sizes[self._judged]
        )
        ndcg, faithful, of_shares = self._by_source(quality), {}, {}
        effects, counts = self._samples.effects, self._samples.counts
        if effects is not None:
            faithful = self._by_source(faithfulness(effects, scores, counts))
            shares = np.concatenate([softmax(of_sample) for of_sample in _split(scores, counts)])
            of_shares = self._by_source(faithfulness(effects, shares, counts))
        return CandidateResult(
            candidate,
            macro_mean(ndcg),
            ndcg,
            macro_mean(faithful) if faithful else None,
            faithful,
            macro_mean(of_shares) if of_shares else None,
            quality,
        )

    def scores(self, candidate: Candidate) -> Floats:
        """Return the score of every chunk, [N], by weights fitted without its sample's fold."""
        if self._built != (candidate.spec, candidate.depth):
            self._built = (candidate.spec, candidate.depth)
            self._matrix = self._samples.matrix(*self._built)
        scores = np.zeros(len(self._matrix))
        for fold in np.unique(self._fold_of):
            held_out = self._fold_of == fold
            fit = fit_objective(
                candidate.objective,
                self._samples,
                self._matrix,
                ridge=candidate.ridge,
                chosen=~held_out,
                groups=self._samples.limit(candidate.depth, candidate.key_heads),
            )
            rows = np.repeat(held_out, self._samples.counts)
            scores[rows] = fit.scores(self._matrix[rows])
        return scores

    def _by_source(self, values: Floats) -> dict[str, float]:
        known = ~np.isnan(values)
        return mean_by_source(values[known], self._sources[known])


def mean_by_source(values: npt.NDArray[Any], sources: npt.NDArray[np.str_]) -> dict[str, float]:
    """Return the mean of each source's samples, sources in alphabetical order."""
    return {str(name): float(values[sources == name].mean()) for name in np.unique(sources)}


def macro_mean(by_source: Mapping[str, float]) -> float:
    """Return the mean over sources."""
    return float(np.mean(list(by_source.values())))


def assign_folds(
    groups: Sequence[int], folds: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return each sample's fold; samples of one group share it, folds are about equally large.

    scikit-learn's `GroupKFold` does the same, but not with ties in a seeded order, which the folds
    of the shipped weights were drawn with.
    """
    numbers, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(numbers))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, load = np.zeros(len(numbers), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    for group in order:
        fold_of[group] = np.argmin(load)
        load[fold_of[group]] += sizes[group]
    return fold_of[inverse]


def ndcg_at_10(scores: Floats, labels: Bools, counts: npt.NDArray[np.int64]) -> Floats:
    """Return each sample's nDCG@10 with binary gains (Järvelin and Kekäläinen, 2002), [I].

    Ties keep the chunks' order, unlike in scikit-learn's, which takes their mean.
    """
    discounts = 1 / np.log2(np.arange(2, 12))
    values = []
    for of_sample, gold in zip(_split(scores, counts), _split(labels, counts), strict=True):
        ranked = gold[np.argsort(-of_sample, kind="stable")][:10]
        best = discounts[: min(10, int(gold.sum()))].sum()
        values.append(float(ranked @ discounts[: len(ranked)]) / best)
    return np.array(values)


def faithfulness(effects: Effects, scores: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    """Return for each sample the correlation of predicted and measured effects of random masks.

    [I]; NaN for fewer than three masks, or where all effects or all predictions are alike.
    """
    values = []
    samples = zip(effects.masks, effects.likelihoods, _split(scores, counts), strict=True)
    for masks, likelihoods, of_chunks in samples:
        first = masks.shape[1] + 2  # after all kept, each left out, all left out
        predicted, measured = masks[first:] @ of_chunks, likelihoods[first:]
        if len(measured) < 3 or np.ptp(predicted) < 1e-12 or np.ptp(measured) < 1e-12:
            values.append(float("nan"))
        else:
            values.append(float(np.corrcoef(predicted, measured)[0, 1]))
    return np.array(values)


def rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the values rounded to four decimals."""
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def _split(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
    return np.split(values, np.cumsum(counts)[:-1])
