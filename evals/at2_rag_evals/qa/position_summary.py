"""Accuracy by the position that the gold chunk was moved to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from at2_rag.data.examples import Example
from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.run import CellResult
from at2_rag_evals.qa.tables import cell_table
from at2_rag_evals.summary import Figures, Strata, with_macro
from at2_rag_evals.tables import Table


@dataclass(frozen=True, slots=True)
class PositionSummary:
    """A generator's accuracy at every position.

    Attributes:
        name: The generator.
        accuracy: Source or "macro" -> position -> cell -> estimate.
        minus_first: The same, with the cell's accuracy at the first position subtracted; paired.
    """

    name: str
    accuracy: Figures
    minus_first: Figures

    def tables(self) -> Iterator[Table]:
        """Yield the tables: macro over sources, then source by source."""
        for group, positions in reversed(list(self.accuracy.items())):
            title = f"{group}, {self.name}"
            yield cell_table(f"Accuracy by place of the gold chunk, {title}", positions)
            yield cell_table(
                f"Accuracy minus that with gold in first place, {title}",
                self.minus_first[group],
                difference=True,
            )


def summarise_positions(
    items: Sequence[Example],
    results: Mapping[str, Sequence[CellResult]],
    clusters: Sequence[int],
    *,
    seed: int,
    resamples: int,
) -> PositionSummary:
    """Work out one generator's figures.

    Args:
        items: The items, with their gold chunks at any position.
        results: Position -> the generator's cells, the same ones at every position; the others
            are compared with the first position.
        clusters: Each item's cluster.
        seed: Seed of the bootstrap.
        resamples: Number of draws.
    """
    positions, cells = list(results), list(next(iter(results.values())))
    columns = [
        [judged.metrics[PRIMARY] for judged in result.judged]
        for position in positions
        for result in results[position]
    ]
    values = np.array(columns, dtype=np.float64).T  # [N, positions * cells], None becomes NaN
    name = cells[0].generator
    strata = Strata(clusters, f"gold position, {name}", seed, resamples)
    samples = with_macro(strata.sample(values, [item.source for item in items], metric=PRIMARY))

    def figures(first: int, *, minus_first: bool) -> dict[str, dict[str, dict[str, Estimate]]]:
        return {
            group: {
                position: {
                    result.cell.label: sample.estimate(
                        row * len(cells) + column, minus=column if minus_first else None
                    )
                    for column, result in enumerate(cells)
                }
                for row, position in enumerate(positions)
                if row >= first
            }
            for group, sample in samples.items()
        }

    return PositionSummary(name, figures(0, minus_first=False), figures(1, minus_first=True))
