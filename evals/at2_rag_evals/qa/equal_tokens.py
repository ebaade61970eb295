"""Accuracy at equal tokens: what another pruner would get with as many tokens as ours spends.

Two pruners' "top 3" are contexts of different length. Here every other pruner gets, in each source,
the same mean context tokens as the cell it is compared with: from its cell that is within
`TOLERANCE` of them, or else from a mixture of its two cells next below and above. A mixture gives a
random share of the items one budget and the rest the other; its expected tokens and accuracy, the
weighted means of those cells, are what is reported. A pruner's cells begin with `closed_book` and,
unless it changes texts, end with `none`, where those were run. Budgets of chunks and of tokens
count alike.

A mixture lies on a straight line between two cells. Where accuracy rises ever less with tokens, a
budget near ours would do better by the other pruner; run some where a mixture decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag_evals.qa.run import CellName

TOLERANCE = 0.02
"""Largest difference of mean tokens, as a share of ours, at which a cell is taken as it is."""

NOTHING, EVERYTHING = "closed_book", "none"


@dataclass(frozen=True, slots=True)
class Mixture:
    """A pruner with the tokens of another's cell, in one source.

    Attributes:
        low: Label of the cell that a share 1 - `share` of the items gets.
        high: Label of the cell that the others get; the same as `low` where one cell is close.
        share: From 0 to 1.
        tokens: Mean context tokens of the mixture.
    """

    low: str
    high: str
    share: float
    tokens: float

    def values(
        self, values: npt.NDArray[np.float64], labels: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """Return the expected value of each item, [N], from the values of all cells, [N, K]."""
        low, high = (values[:, labels.index(label)] for label in (self.low, self.high))
        return (1 - self.share) * low + self.share * high


def matched(
    ours: CellName,
    cells: Sequence[CellName],
    tokens: Mapping[str, Mapping[str, float]],
    *,
    changing: Collection[str] = (),
) -> dict[str, dict[str, Mixture]]:
    """Return other pruner -> source -> its mixture with as many tokens as our cell.

    Left out are pruners without budgets, and those whose cells don't lie on both sides of our
    tokens in every source.

    Args:
        ours: The cell to compare with.
        cells: All cells of a generator.
        tokens: Source -> label -> mean context tokens.
        changing: Names of the pruners that change texts, and so don't end with `none`.
    """
    matches: dict[str, dict[str, Mixture]] = {}
    for pruner in dict.fromkeys(cell.pruner for cell in cells if cell.budget is not None):
        curve = [
            cell.label
            for cell in cells
            if cell.pruner == pruner
            and cell.budget is not None
            and (None in (cell.order, ours.order) or cell.order == ours.order)
        ]
        if pruner == ours.pruner or not curve:
            continue
        outer = (NOTHING,) if pruner in changing else (NOTHING, EVERYTHING)
        ends = [cell.label for cell in cells if cell.pruner in outer]
        mixtures = {
            source: mixture
            for source, spent in tokens.items()
            if (mixture := _mixture(spent[ours.label], curve, ends, spent)) is not None
        }
        if len(mixtures) == len(tokens):
            matches[pruner] = mixtures
    return matches


def _mixture(
    wanted: float, curve: Sequence[str], ends: Sequence[str], tokens: Mapping[str, float]
) -> Mixture | None:
    nearest = min(curve, key=lambda label: abs(tokens[label] - wanted))
    if abs(tokens[nearest] - wanted) <= TOLERANCE * wanted:
        return Mixture(nearest, nearest, 0.0, tokens[nearest])
    below = [label for label in (*curve, *ends) if tokens[label] <= wanted]
    above = [label for label in (*curve, *ends) if tokens[label] > wanted]
    if not below or not above:
        return None
    low = max(below, key=lambda label: tokens[label])
    high = min(above, key=lambda label: tokens[label])
    share = (wanted - tokens[low]) / (tokens[high] - tokens[low])
    return Mixture(low, high, share, wanted)
