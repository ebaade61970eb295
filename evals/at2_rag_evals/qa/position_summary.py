"""Accuracy by where the gold chunk was put."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from at2_rag.data.examples import Example
from at2_rag_evals.bootstrap import Estimate, macro_sample
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.report import cell_table
from at2_rag_evals.qa.run import CellResult
from at2_rag_evals.report import figures
from at2_rag_evals.summary import MACRO, Strata
from at2_rag_evals.tables import Table


@dataclass(frozen=True, slots=True)
class PositionSummary:
    """A generator's accuracy in every place.

    Attributes:
        name: The generator.
        accuracy: Source or "macro" -> place -> cell -> estimate.
        minus_first: The same, with the cell's accuracy in first place subtracted; paired.
    """

    name: str
    accuracy: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    minus_first: Mapping[str, Mapping[str, Mapping[str, Estimate]]]

    def tables(self) -> Iterator[Table]:
        """Yield the tables: macro over sources, then source by source."""
        for group, places in reversed(list(self.accuracy.items())):
            labels = list(next(iter(places.values())))
            title = f"{group}, {self.name}"
            yield cell_table(f"Accuracy by place of the gold chunk, {title}", places, labels)
            yield cell_table(
                f"Accuracy minus that with gold in first place, {title}",
                self.minus_first[group],
                labels,
                difference=True,
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return {
            "name": self.name,
            "accuracy": figures(self.accuracy),
            "minus_first": figures(self.minus_first),
        }


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
        items: The items, in whatever place their gold is.
        results: Place -> the generator's cells, the same ones in every place; the first place is
            what others are compared with.
        clusters: Each item's cluster.
        seed: Seed of the bootstrap.
        resamples: Number of draws.
    """
    places = list(results)
    cells = [result.cell.label for result in results[places[0]]]
    columns = [
        [judged.metrics[PRIMARY] for judged in result.judged]
        for place in places
        for result in results[place]
    ]
    values = np.array(columns, dtype=np.float64).T  # None becomes NaN
    name = results[places[0]][0].generator
    strata = Strata(clusters, f"gold position, {name}", seed, resamples)
    samples = strata.sample(values, [item.source for item in items], metric=PRIMARY)
    if samples:
        samples[MACRO] = macro_sample(list(samples.values()))
    size = len(cells)
    accuracy: dict[str, dict[str, dict[str, Estimate]]] = {}
    minus_first: dict[str, dict[str, dict[str, Estimate]]] = {}
    for group, sample in samples.items():
        accuracy[group] = {
            place: {cell: sample.estimate(row * size + own) for own, cell in enumerate(cells)}
            for row, place in enumerate(places)
        }
        minus_first[group] = {
            place: {
                cell: sample.estimate(row * size + own, minus=own) for own, cell in enumerate(cells)
            }
            for row, place in enumerate(places)
            if row
        }
    return PositionSummary(name, accuracy, minus_first)
