"""The same items with their gold chunk elsewhere: does its position change the answer?

N. F. Liu et al., "Lost in the Middle: How Language Models Use Long Contexts", TACL 2024, move the
gold document through the context and find a U-shaped curve; here through five positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from at2_rag.data.bootstrap import RESAMPLES, Estimate
from at2_rag.data.examples import Example
from at2_rag_evals.items import count
from at2_rag_evals.qa.items import QASet
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.run import CellResult
from at2_rag_evals.qa.tables import cell_table
from at2_rag_evals.summary import Figures, Strata, with_macro
from at2_rag_evals.tables import Table

SHARES: Mapping[str, float] = MappingProxyType(
    {"first": 0.0, "quarter": 0.25, "middle": 0.5, "three-quarter": 0.75, "last": 1.0}
)
"""Positions by name, as shares of the way from the first chunk to the last."""

MIN_CHUNKS = len(SHARES)


@dataclass(frozen=True, slots=True)
class PositionSummary:
    """A generator's accuracy by position of the gold chunk."""

    name: str
    accuracy: Figures  # source or "macro" -> position -> cell -> estimate
    minus_first: Figures  # the same, minus the cell's accuracy at the first position; paired

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


def movable_items(items: QASet) -> QASet:
    """Keep the items with exactly one gold chunk among at least five; count the others."""
    kept = []
    left_out = {source: dict(reasons) for source, reasons in items.left_out.items()}
    for item in items.items:
        if sum(item.labels) != 1:
            count(left_out, item.source, "not exactly one gold chunk")
        elif len(item.chunks) < MIN_CHUNKS:
            count(left_out, item.source, f"fewer than {MIN_CHUNKS} chunks")
        else:
            kept.append(item)
    return QASet(tuple(kept), left_out, {})


def with_gold_at(item: Example, share: float) -> Example:
    """Return the item with its one gold chunk moved, the others in their order.

    `share` is from 0 for the first position to 1 for the last; halves are rounded up.
    """
    gold = item.labels.index(True)
    order = [index for index in range(len(item.chunks)) if index != gold]
    order.insert(int(share * len(order) + 0.5), gold)
    sentences = item.gold_sentences
    return replace(
        item,
        chunks=tuple(item.chunks[index] for index in order),
        labels=tuple(item.labels[index] for index in order),
        gold_sentences=tuple(sentences[index] for index in order) if sentences else (),
    )


def summarise_positions(
    items: Sequence[Example],
    results: Mapping[str, Sequence[CellResult]],
    clusters: Sequence[int],
    *,
    seed: int,
) -> PositionSummary:
    """Work out one generator's figures from position -> its cells, the same at each position."""
    columns = [
        [judged.metrics[PRIMARY] for judged in result.judged]
        for cells in results.values()
        for result in cells
    ]
    values = np.array(columns, dtype=np.float64).T  # [N, positions * cells], None becomes NaN
    first, *others = results
    labels = [result.cell.label for result in results[first]]
    name = results[first][0].generator
    strata = Strata(clusters, f"gold position, {name}", seed, RESAMPLES)
    samples = with_macro(strata.sample(values, [item.source for item in items], metric=PRIMARY))
    accuracy: dict[str, dict[str, dict[str, Estimate]]] = {}
    minus_first: dict[str, dict[str, dict[str, Estimate]]] = {}
    for group, sample in samples.items():
        accuracy[group] = {position: {} for position in results}
        minus_first[group] = {position: {} for position in others}
        for row, position in enumerate(results):
            for cell, label in enumerate(labels):
                column = row * len(labels) + cell
                accuracy[group][position][label] = sample.estimate(column)
                if row:
                    minus_first[group][position][label] = sample.estimate(column, minus=cell)
    return PositionSummary(name, accuracy, minus_first)
