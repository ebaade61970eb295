"""Whether one max_missed keeps as much of the evidence on a data set it was chosen without.

For each source in turn, head weights and calibration are fitted to the others, and so is the
max_missed: the largest under which the mean share of gold chunks kept, over sources, reaches a
target. On the source left out it is then seen what share is kept, and how long what is kept is
beside what a max_missed chosen on that very source would keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.training.calibrating.probabilities import LabelledCall, out_of_fold_evidence
from at2_rag.training.calibrating.study import fit_without, said_of
from at2_rag.training.fitting.intervals import percentile_interval
from at2_rag.training.fitting.validation import source_weights

TARGET = 0.9
"""Share of gold chunks to keep."""

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TransferFigures:
    """What one max_missed does on a source that it was chosen without.

    Attributes:
        source: The data set.
        split: "fitted" for calls like those that others are fitted to, "judged" for other ones.
        calls: Calls judged.
        max_missed: The max_missed chosen on the other sources.
        kept_gold: Mean share of a call's gold chunks kept with it.
        kept_gold_interval: 95 % percentile bootstrap interval, over calls.
        chunks: Mean chunks kept.
        words: Mean words kept.
        tuned_tolerance: The one chosen on these very calls.
        tuned_kept_gold: What that keeps.
        words_ratio: Words kept, as a multiple of those kept with the tuned one.
        words_ratio_interval: 95 % percentile bootstrap interval, the tuned max_missed as it is.
    """

    source: str
    split: str
    calls: int
    max_missed: float
    kept_gold: float
    kept_gold_interval: Interval
    chunks: float
    words: float
    tuned_tolerance: float
    tuned_kept_gold: float
    words_ratio: float
    words_ratio_interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class _Keeping:
    """What a call keeps, by how many chunks it keeps.

    Attributes:
        source: The data set it is from.
        rest: [S], the probabilities of all but the best, the best two and so on, summed.
        gold: [S], the share of gold chunks among the best, the best two and so on.
        words: [S], the words of those.
    """

    source: str
    rest: Floats
    gold: Floats
    words: Floats

    def count(self, max_missed: float) -> int:
        """Return how many chunks a max_missed keeps, as `selection.select` does."""
        return 1 + int(np.count_nonzero(self.rest[:-1] > max_missed))


def judge_transfer(
    calls: Sequence[LabelledCall],
    shape: tuple[int, int, int],
    judged: Sequence[LabelledCall] = (),
    *,
    target: float = TARGET,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[TransferFigures]:
    """Yield for each source what the max_missed of the others does on it.

    Args:
        calls: Calls of at least two sources, with words; twins are fitted on and not judged.
        shape: [P, L, H] of the head weights.
        judged: Further calls, which nothing is fitted to; by those of a source it is judged again.
        target: The share of gold chunks to keep, in (0, 1].
        progress: Called with the sources done and in all.

    Raises:
        InputError: If what is left of the others can't be fitted to.
    """
    names = sorted({own.source for own in calls if _usable(own)})
    for done, name in enumerate(names):
        progress(done, len(names))
        others = [own for own in calls if own.source != name]
        scores, readout, calibration = fit_without(others, shape)
        evidence = out_of_fold_evidence(others)
        max_missed = max_missed_for(
            target,
            [
                _keeping(own, values, calibration.probabilities(values, best))
                for own, values, best in zip(others, scores, evidence.tolist(), strict=True)
                if _usable(own)
            ],
        )
        for split, every in (("fitted", calls), ("judged", judged)):
            found = [
                _keeping(own, *said_of(own, readout, calibration)[:2])
                for own in every
                if own.source == name and _usable(own)
            ]
            if found:
                yield _figures(name, split, found, max_missed, max_missed_for(target, found))
    progress(len(names), len(names))


def max_missed_for(target: float, calls: Sequence[_Keeping]) -> float:
    """Return the largest max_missed under which the mean share of gold kept reaches the target.

    Every source counts the same. The share never rises with the max_missed, so that it is found by
    bisection among the sums at which what is kept changes.
    """
    weights = source_weights([own.source for own in calls])
    candidates = np.unique(np.concatenate([own.rest for own in calls]))
    low, high = 0, len(candidates)  # the first is 0, which keeps everything that can be gold
    while high - low > 1:
        middle = (low + high) // 2
        kept = np.array([own.gold[own.count(candidates[middle]) - 1] for own in calls])
        low, high = (middle, high) if float(weights @ kept) >= target else (low, middle)
    return float(candidates[low])


def _usable(own: LabelledCall) -> bool:
    return own.answerable is None and own.words is not None and bool(own.gold.any())


def _keeping(own: LabelledCall, scores: Floats, likely: Floats) -> _Keeping:
    order = np.argsort(-scores, kind="stable")
    left = np.cumsum(likely[order][::-1])[::-1]
    words = np.zeros(len(order)) if own.words is None else own.words[order].astype(float)
    return _Keeping(
        own.source,
        np.append(left[1:], 0.0),
        np.cumsum(own.gold[order]) / own.gold.sum(),
        np.cumsum(words),
    )


def _figures(
    source: str, split: str, calls: Sequence[_Keeping], max_missed: float, tuned: float
) -> TransferFigures:
    counts = [own.count(max_missed) - 1 for own in calls]
    tuned_counts = [own.count(tuned) - 1 for own in calls]
    gold = np.array([own.gold[last] for own, last in zip(calls, counts, strict=True)])
    words = np.array([own.words[last] for own, last in zip(calls, counts, strict=True)])
    tuned_gold = [own.gold[last] for own, last in zip(calls, tuned_counts, strict=True)]
    tuned_words = np.array([own.words[last] for own, last in zip(calls, tuned_counts, strict=True)])
    return TransferFigures(
        source=source,
        split=split,
        calls=len(calls),
        max_missed=max_missed,
        kept_gold=float(gold.mean()),
        kept_gold_interval=percentile_interval([gold], np.mean),
        chunks=1 + float(np.mean(counts)),
        words=float(words.mean()),
        tuned_tolerance=tuned,
        tuned_kept_gold=float(np.mean(tuned_gold)),
        words_ratio=float(words.sum() / tuned_words.sum()),
        words_ratio_interval=percentile_interval(
            [words, tuned_words], lambda own, other, axis: own.sum(axis) / other.sum(axis)
        ),
    )
