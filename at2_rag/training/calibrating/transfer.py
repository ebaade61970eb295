"""Whether one max_missed keeps as much of the evidence on a data set it was chosen without.

For each source in turn, head weights and calibration are fitted to the others, and so is
max_missed: the largest under which the mean share of gold chunks kept, over sources, reaches a
target. Two things are measured on the source left out: the share of its gold chunks kept, and the
words kept as a multiple of what a max_missed tuned on that very source would keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from at2_rag.training.calibrating.fits import Floats
from at2_rag.training.calibrating.left_out import Prediction
from at2_rag.training.calibrating.metrics import percentile_interval
from at2_rag.training.fitting.samples import source_weights

TARGET = 0.9
"""Share of gold chunks to keep."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TransferFigures:
    """What one max_missed does on a source that it was chosen without.

    Attributes:
        source: The data set.
        split: "fitted" for questions like those that others are fitted to, "judged" for further
            ones.
        calls: Questions judged.
        max_missed: The one chosen on the other sources.
        kept_gold: Mean share of a question's gold chunks that it keeps.
        kept_gold_interval: 95 % percentile bootstrap interval, over questions.
        chunks: Mean chunks kept.
        words: Mean words kept.
        tuned_max_missed: The one chosen on these very questions.
        tuned_kept_gold: What that keeps.
        words_ratio: Words kept, as a multiple of those kept with the tuned one.
        words_ratio_interval: 95 % percentile bootstrap interval, the tuned one held fixed.
    """

    source: str
    split: str
    calls: int
    max_missed: float
    kept_gold: float
    kept_gold_interval: Interval
    chunks: float
    words: float
    tuned_max_missed: float
    tuned_kept_gold: float
    words_ratio: float
    words_ratio_interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class KeptCurve:
    """What keeping the best chunk of a question, the best two and so on comes to.

    Attributes:
        source: The data set it is from.
        missed: [S], expected number of relevant chunks dropped.
        gold: [S], share of gold chunks kept.
        words: [S], words kept.
    """

    source: str
    missed: Floats
    gold: Floats
    words: Floats

    def kept(self, max_missed: float) -> tuple[int, float, float]:
        """Return chunks, share of gold and words kept, as `selection.select` chooses them."""
        last = int(np.count_nonzero(self.missed[:-1] > max_missed))
        return last + 1, float(self.gold[last]), float(self.words[last])


def judge_transfer(
    source: str, fitted: Iterable[Prediction], judged: Mapping[str, Iterable[Prediction]]
) -> list[TransferFigures]:
    """Return the figures of each split of a source that has samples to be ranked.

    Args:
        source: The source left out.
        fitted: Predictions of the samples of the others, to which max_missed is fitted.
        judged: Predictions of samples of the source, by the name of their split.
    """
    max_missed = max_missed_for(kept_curves(fitted))
    splits = {split: kept_curves(predictions) for split, predictions in judged.items()}
    return [
        _figures(source, split, curves, max_missed) for split, curves in splits.items() if curves
    ]


def kept_curves(predictions: Iterable[Prediction]) -> list[KeptCurve]:
    """Return the curve of each sample that can be ranked."""
    curves = []
    for prediction in predictions:
        sample = prediction.sample
        if sample.is_ranked:
            order = np.argsort(-prediction.scores, kind="stable")
            left = np.cumsum(prediction.probabilities[order][::-1])[::-1]
            gold = np.cumsum(sample.gold[order]) / sample.gold.sum()
            words = np.cumsum(sample.words[order].astype(float))
            curves.append(KeptCurve(sample.source, np.append(left[1:], 0.0), gold, words))
    return curves


def max_missed_for(curves: Sequence[KeptCurve]) -> float:
    """Return the largest max_missed under which the mean share of gold kept reaches `TARGET`.

    Every source counts the same. The share never rises with max_missed, so bisection finds it
    among the values at which what is kept changes.
    """
    weights = source_weights([curve.source for curve in curves])
    candidates = np.unique(np.concatenate([curve.missed for curve in curves]))
    low, high = 0, len(candidates)  # the first is 0, which keeps all gold
    while high - low > 1:
        middle = (low + high) // 2
        _, kept, _ = _kept(curves, candidates[middle])
        low, high = (middle, high) if float(weights @ kept) >= TARGET else (low, middle)
    return float(candidates[low])


def _figures(
    source: str, split: str, curves: Sequence[KeptCurve], max_missed: float
) -> TransferFigures:
    tuned = max_missed_for(curves)
    chunks, gold, words = _kept(curves, max_missed)
    _, tuned_gold, tuned_words = _kept(curves, tuned)

    def ratio(ours: Floats, theirs: Floats, axis: int = -1) -> Any:
        return ours.sum(axis) / theirs.sum(axis)

    return TransferFigures(
        source=source,
        split=split,
        calls=len(curves),
        max_missed=max_missed,
        kept_gold=float(gold.mean()),
        kept_gold_interval=percentile_interval([gold], np.mean),
        chunks=float(chunks.mean()),
        words=float(words.mean()),
        tuned_max_missed=tuned,
        tuned_kept_gold=float(tuned_gold.mean()),
        words_ratio=float(ratio(words, tuned_words)),
        words_ratio_interval=percentile_interval([words, tuned_words], ratio),
    )


def _kept(curves: Sequence[KeptCurve], max_missed: float) -> Floats:
    """Return chunks, share of gold and words that each question keeps, [3, I]."""
    return np.array([curve.kept(max_missed) for curve in curves]).T
