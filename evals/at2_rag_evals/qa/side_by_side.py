"""Generators side by side: does what helps one help others?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.report import Section
from at2_rag_evals.qa.summary import BASELINE, GeneratorSummary
from at2_rag_evals.report import difference_cell, estimate_cell
from at2_rag_evals.summary import MACRO
from at2_rag_evals.tables import Cell, Table

_NONE = Cell("-")


def side_by_side(summaries: Sequence[GeneratorSummary]) -> Section:
    """Lay out several generators side by side: macro accuracy of each cell, and less `none`.

    Args:
        summaries: One a generator.
    """
    labels = list(dict.fromkeys(cell.label for own in summaries for cell in own.cells))

    def accuracy(summary: GeneratorSummary, label: str) -> Cell:
        estimate = summary.by_source[PRIMARY].get(MACRO, {}).get(label)
        return _NONE if estimate is None else estimate_cell(estimate)

    def difference(summary: GeneratorSummary, label: str) -> Cell:
        estimate = summary.differences.get(BASELINE, {}).get(MACRO, {}).get(label)
        return _NONE if estimate is None else difference_cell(estimate.negated)

    tables = [_table("Macro accuracy, by generator", summaries, labels, accuracy)]
    if any(BASELINE in own.differences for own in summaries):
        others = [label for label in labels if label != BASELINE]
        title = f"Macro accuracy minus {BASELINE}, by generator"
        tables.append(_table(title, summaries, others, difference))
    return Section("Generators side by side", (), tuple(tables))


def _table(
    title: str,
    summaries: Sequence[GeneratorSummary],
    labels: Sequence[str],
    show: Callable[[GeneratorSummary, str], Cell],
) -> Table:
    header = [Cell("cell"), *(Cell(summary.name) for summary in summaries)]
    rows = [[Cell(label), *(show(summary, label) for summary in summaries)] for label in labels]
    return Table(title, header, rows)
