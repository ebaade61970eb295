"""A teacher's scores as soft labels: how a list's relevance is shared out over its chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats

SOFTNESS = 0.3
"""Mean entropy of a source's soft labels: 0 if all is the best chunk's, 1 if chunks share alike."""

_LEAST, _LARGEST = 1e-4, 1e4  # temperatures, in standard deviations of scores within a list
_HALVINGS = 60


def soft_labels(
    scores: Floats, counts: npt.NDArray[np.int64], sources: npt.NDArray[np.str_]
) -> Floats:
    """Return the share of its list's relevance that each chunk has by its teacher's score, [N].

    That is the softmax of a list's scores divided by a temperature, one for each source: the one by
    which the entropy of a list's shares, relative to that of equal shares, is `SOFTNESS` on
    average. So neither a score's scale nor its zero matters, and lists in which the teacher is sure
    have sharper shares than others.

    Args:
        scores: [N], the chunks of a list one after another; NaN where the teacher gave none.
        counts: [I], chunks of each list.
        sources: [I].

    Returns:
        NaN where the teacher gave no score, and in lists of which it tells no two chunks apart.
    """
    shares = np.full(len(scores), np.nan)
    rows_of = np.split(np.arange(len(scores)), np.cumsum(counts)[:-1])
    for source in np.unique(sources):
        lists = []
        for index in np.flatnonzero(sources == source):
            rows = rows_of[index][~np.isnan(scores[rows_of[index]])]
            if len(np.unique(scores[rows])) > 1:
                lists.append(rows)
        if lists:
            rows = np.concatenate(lists)
            shares[rows] = _Lists(scores[rows], np.array([len(part) for part in lists])).shares()
    return shares


class _Lists:
    """Scores of lists of two chunks or more, not all alike in any of them."""

    def __init__(self, scores: Floats, counts: npt.NDArray[np.int64]) -> None:
        self._counts, self._starts = counts, np.cumsum(counts) - counts
        scores = scores / np.abs(scores).max()  # so that no scale is too large or too small
        below = scores - np.repeat(np.maximum.reduceat(scores, self._starts), counts)
        means = np.add.reduceat(below, self._starts) / counts
        deviation = np.sqrt(np.mean((below - np.repeat(means, counts)) ** 2))
        self._below = below / deviation

    def shares(self) -> Floats:
        """Return the shares at the temperature that `SOFTNESS` is met by, or the nearest to it."""
        low, high = np.log(_LEAST), np.log(_LARGEST)
        for _ in range(_HALVINGS):  # the entropy rises with the temperature
            middle = (low + high) / 2
            if self._entropy(self._at(np.exp(middle))) < SOFTNESS:
                low = middle
            else:
                high = middle
        return self._at(np.exp(low))

    def _at(self, temperature: float) -> Floats:
        exponents = np.exp(self._below / temperature)
        shares: Floats = exponents / np.repeat(
            np.add.reduceat(exponents, self._starts), self._counts
        )
        return shares

    def _entropy(self, shares: Floats) -> float:
        """Return the mean entropy of the lists' shares, each relative to that of equal shares."""
        terms = shares * np.log(np.where(shares > 0, shares, 1))
        return float(np.mean(-np.add.reduceat(terms, self._starts) / np.log(self._counts)))
