"""Fits multi-hop weights. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.readout.calibration import RISING, chunk_terms
from at2_rag.readout.multi_hop import MultiHop, divided_anew, second_scores
from at2_rag.training.calibrating.fits import (
    EVERY,
    Bools,
    Floats,
    Row,
    fit_link,
    fit_ranking,
    out_of_fold,
)
from at2_rag.training.calibrating.metrics import percentile_interval

RIDGE = 0.1
"""Ridge penalty on the weights of standardised features."""

TOP = 3
"""Chunks among which all gold ones are looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class MultiHopSample:
    """One question's chunks after the second reading, the question beside the best chunk.

    Attributes:
        source: The data set it is from.
        fold: Its fold.
        scores: [S], the first scores of all its chunks, at least two.
        gold: [S] bool.
        evidence: The greatest evidence logit of the first reading.
        features: [S - 1, L x H] float32, of all chunks but the best, in order.
        index: Index of its sample among all samples.
    """

    source: str
    fold: int
    scores: Floats
    gold: Bools
    evidence: float
    features: npt.NDArray[np.float32]
    index: int = 0

    @property
    def best(self) -> int:
        """Index of the chunk with the greatest first score."""
        return int(np.argmax(self.scores))

    @property
    def others(self) -> Bools:
        """Which chunks are not the best one, [S]."""
        others: Bools = np.arange(len(self.scores)) != self.best
        return others

    @property
    def inputs(self) -> npt.NDArray[np.float32]:
        """First scores and features of the others, [S - 1, 1 + L x H]."""
        first = self.scores[self.others].astype(np.float32)
        return np.hstack([first[:, None], self.features])


@dataclass(frozen=True, slots=True)
class MultiHopFigures:
    """How often the best three chunks hold all gold ones, where there are two or three.

    Attributes:
        source: The data set, or `EVERY`.
        calls: Questions judged.
        without: Share of them by first scores.
        with_it: Share of them after a second reading, by weights fitted without their fold.
        low: Lower end of the 95 % percentile bootstrap interval of the difference.
        high: Its upper end.
    """

    source: str
    calls: int
    without: float
    with_it: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """The difference."""
        return self.with_it - self.without


def fit_multi_hop(samples: Sequence[MultiHopSample], shape: tuple[int, int]) -> MultiHop:
    """Return the multi-hop weights under which gold chunks other than the best are likeliest.

    Weights are fitted to samples with gold among the other chunks, each counting the same, by the
    listwise loss; probabilities to all samples, by weights fitted without their fold, every source
    counting the same.

    Args:
        samples: Of at least two folds.
        shape: [L, H], layers and heads of the weights.

    Raises:
        InputError: If no sample, or none outside a fold, has gold and other chunks beside the best.
    """
    chunk = fit_link(
        [
            Row(
                sample.source,
                chunk_terms(divided_anew(sample.scores[sample.others], second), sample.evidence),
                sample.gold[sample.others],
            )
            for sample, second in zip(samples, _out_of_fold_second(samples), strict=True)
        ],
        name="second gold label",
        rising=RISING,
    )
    weight = _fit(samples)
    heads = weight[1:].reshape(shape).astype(np.float32)
    return MultiHop(heads, max(0.0, float(weight[0])), chunk)


def scores_after(samples: Sequence[MultiHopSample]) -> list[Floats]:
    """Return each sample's scores [S] after the second reading, weights fitted without its fold."""
    return [
        second_scores(sample.scores, sample.best, second)
        for sample, second in zip(samples, _out_of_fold_second(samples), strict=True)
    ]


def judge_multi_hop(samples: Sequence[MultiHopSample]) -> list[MultiHopFigures]:
    """Return the figures of each source that has samples with two or three gold chunks, and of all.

    Args:
        samples: As in `fit_multi_hop`; none for no figures.
    """
    groups: dict[str, list[tuple[bool, bool]]] = {}
    every: list[tuple[bool, bool]] = []
    for sample, after in zip(samples, scores_after(samples), strict=True):
        if 2 <= sample.gold.sum() <= TOP:
            pair = (_all_gold(sample.scores, sample.gold), _all_gold(after, sample.gold))
            groups.setdefault(sample.source, []).append(pair)
            every.append(pair)
    figures = [_figures(name, pairs) for name, pairs in sorted(groups.items())]
    return [*figures, _figures(EVERY, every)] if figures else []


def _figures(source: str, pairs: Sequence[tuple[bool, bool]]) -> MultiHopFigures:
    without, with_it = np.array(pairs, dtype=float).T
    low, high = percentile_interval([with_it - without], np.mean)
    return MultiHopFigures(
        source, len(pairs), float(without.mean()), float(with_it.mean()), low, high
    )


def _all_gold(scores: Floats, gold: Bools) -> bool:
    return bool(gold[np.argsort(-scores, kind="stable")[:TOP]].sum() == gold.sum())


def _out_of_fold_second(samples: Sequence[MultiHopSample]) -> list[Floats]:
    """Return each sample's second scores [S - 1], by weights fitted without its fold."""
    weights = out_of_fold(samples, _fit)
    return [sample.inputs @ weight for sample, weight in zip(samples, weights, strict=True)]


def _fit(samples: Sequence[MultiHopSample]) -> Floats:
    """Return the weights [1 + L x H] of first score and features."""
    rows = [Row(EVERY, sample.inputs, sample.gold[sample.others]) for sample in samples]
    return fit_ranking(rows, name="multi-hop weights", ridge=RIDGE).weight
