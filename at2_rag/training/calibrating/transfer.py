"""Whether one max_missed keeps as much of the evidence on a data set it was chosen without.

For each source in turn, head weights and calibration are fitted to the others, and so is
max_missed: the largest that keeps a target share of gold chunks. On the source left out, the share
of gold chunks that it keeps is measured, and how many more words than one tuned there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from at2_rag.arrays import Floats, missed_shares
from at2_rag.training.calibrating.metrics import percentile_interval
from at2_rag.training.calibrating.probabilities import CalibrationSample
from at2_rag.training.fitting.samples import source_weights

TARGET = 0.9  # share of gold chunks to keep
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TransferFigures:
    """What one max_missed does on a source that it was chosen without.

    Intervals are 95 % percentile bootstrap intervals over questions, max_missed held fixed.
    """

    source: str
    split: str  # "fitted": questions that are fitted to for other sources; "judged": further ones
    calls: int  # questions judged
    max_missed: float  # chosen on the other sources
    kept_gold: float  # mean share of a question's gold chunks
    kept_gold_interval: Interval
    chunks: float  # mean chunks kept
    words: float  # mean words kept
    tuned_max_missed: float  # chosen on these very questions
    tuned_kept_gold: float
    words_ratio: float  # words kept, as a multiple of those kept with the tuned one
    words_ratio_interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class KeptCurve:
    """What keeping the best chunk of a question, the best two and so on comes to."""

    source: str
    missed: Floats  # [S], expected share of the relevant chunks dropped
    gold: Floats  # [S], share of gold chunks kept
    words: Floats  # [S], words kept

    @classmethod
    def of(cls, sample: CalibrationSample, scores: Floats, probabilities: Floats) -> Self:
        """Return the curve of a sample that can be ranked, by scores and probabilities [S]."""
        order = np.argsort(-scores, kind="stable")
        gold = np.cumsum(sample.gold[order]) / sample.gold.sum()
        words = np.cumsum(sample.words[order].astype(float))
        missed = missed_shares(probabilities[order])[1:]
        return cls(sample.source, missed, gold, words)

    def kept(self, max_missed: float) -> tuple[int, float, float]:
        """Return chunks, share of gold and words kept, as without `keep_if_unsure`."""
        last = int(np.count_nonzero(self.missed[:-1] > max_missed))
        return last + 1, float(self.gold[last]), float(self.words[last])


def max_missed_for(curves: Sequence[KeptCurve]) -> float:
    """Return the largest max_missed under which the mean share of gold kept reaches `TARGET`.

    Every source counts the same. The share never rises with max_missed, so bisection finds it
    among the values at which what is kept changes.
    """
    weights = source_weights([curve.source for curve in curves])
    candidates = np.unique(np.concatenate([curve.missed for curve in curves]))

    def keeps_too_little(max_missed: float) -> bool:
        return float(weights @ _kept(curves, max_missed)[1]) < TARGET

    # The first candidate is 0, which keeps all gold.
    first_too_large = bisect_left(candidates, True, lo=1, key=keeps_too_little)
    return float(candidates[first_too_large - 1])


def judge_transfer(
    source: str, split: str, curves: Sequence[KeptCurve], max_missed: float
) -> TransferFigures:
    """Return the figures of questions of a source left out, at least one."""
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
