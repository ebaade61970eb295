"""Fits multi-hop weights. No model is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Floats, Indices
from at2_rag.data.bootstrap import resample_means
from at2_rag.readout.calibration import RISING
from at2_rag.readout.multi_hop import MultiHop, divided_anew, hop_terms, second_scores
from at2_rag.training.calibrating.fits import (
    EVERY,
    Labelled,
    fit_logistic,
    fit_ranking,
    out_of_fold,
)

RIDGE = 0.03  # on the weights of standardised features
TOP = 3  # chunks among which all gold ones are looked for


@dataclass(frozen=True, slots=True, eq=False)
class MultiHopSample:
    """One question's chunks after the second reading, the question beside the best chunk."""

    source: str
    fold: int
    scores: Floats  # [S], first scores of all chunks, S at least 2
    gold: Bools  # [S]
    best: int  # index of the chunk with the greatest first score
    others: Indices  # [O], of those that were read again
    features: npt.NDArray[np.float32]  # [O, L x H], of these
    cluster: int  # of questions about the same passage or page

    @property
    def ranked(self) -> Labelled:
        """First scores and features of the others, [O, 1 + L x H], and which are gold."""
        others = self.others
        terms = np.hstack([self.scores[others].astype(np.float32)[:, None], self.features])
        return Labelled(EVERY, self.fold, terms, self.gold[others])


@dataclass(frozen=True, slots=True)
class MultiHopFigures:
    """How often the best three chunks hold all gold ones, where there are two or three."""

    source: str  # or `EVERY`
    calls: int  # questions judged
    without: float  # share of them by first scores
    with_it: float  # share after a second reading, by weights fitted without their fold
    low: float | None  # 95 % bootstrap interval of the difference; None from few clusters
    high: float | None

    @property
    def gain(self) -> float:
        """The difference."""
        return self.with_it - self.without

    @property
    def brackets(self) -> str:
        """The interval as tables write it after the difference; "" without one."""
        if self.low is None or self.high is None:
            return ""
        return f" [{self.low:+.3f}, {self.high:+.3f}]"


def fit_multi_hop(
    samples: Sequence[MultiHopSample], shape: tuple[int, int]
) -> tuple[MultiHop, list[Floats]]:
    """Fit multi-hop weights, of shape [L, H], that make gold chunks other than the best likeliest.

    Weights are fitted to samples with gold among the other chunks, each counting the same;
    probabilities to the scores of all samples by weights fitted without their fold, every source
    counting the same. Those scores [S] of each sample are returned beside the weights.
    """
    ranked = [sample.ranked for sample in samples]
    scored, after = [], []
    for sample, of_others, weight in zip(samples, ranked, out_of_fold(ranked, _fit), strict=True):
        second = of_others.terms @ weight
        terms = hop_terms(divided_anew(sample.scores[sample.others], second))
        scored.append(of_others._replace(source=sample.source, terms=terms))
        after.append(second_scores(sample.scores, sample.best, sample.others, second))
    chunk = fit_logistic(scored, name="second gold label", rising=RISING)
    weight = _fit(ranked)
    heads = weight[1:].reshape(shape).astype(np.float32)
    return MultiHop(heads, max(0.0, float(weight[0])), chunk), after


def judge_multi_hop(
    samples: Sequence[MultiHopSample], after: Sequence[Floats]
) -> list[MultiHopFigures]:
    """Return figures of each source that has samples with two or three gold chunks, and of all."""
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    clusters: dict[str, list[int]] = defaultdict(list)
    for sample, scores in zip(samples, after, strict=True):
        if 2 <= sample.gold.sum() <= TOP:
            pair = (_all_gold(sample.scores, sample.gold), _all_gold(scores, sample.gold))
            for name in (sample.source, EVERY):
                pairs[name].append(pair)
                clusters[name].append(sample.cluster)
    names = sorted(pairs, key=lambda name: (name == EVERY, name))
    return [_figures(name, pairs[name], clusters[name]) for name in names]


def _figures(
    source: str, pairs: Sequence[tuple[bool, bool]], clusters: Sequence[int]
) -> MultiHopFigures:
    sample = resample_means(np.array(pairs, dtype=float), clusters, rng=np.random.default_rng(0))
    without, with_it = sample.means.tolist()
    low, high = sample.estimate(1, minus=0).interval or (None, None)
    return MultiHopFigures(source, len(pairs), without, with_it, low, high)


def _all_gold(scores: Floats, gold: Bools) -> bool:
    return bool(gold[np.argsort(-scores, kind="stable")[:TOP]].sum() == gold.sum())


def _fit(samples: Sequence[Labelled]) -> Floats:
    """Return the weights [1 + L x H] of first score and features."""
    return fit_ranking(samples, name="multi-hop weights", ridge=RIDGE).weight
