"""The figures of `at2-rag calibrate` as tables and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from at2_rag.report.plots import Series, reliability_plot
from at2_rag.training.calibrating.fits import EVERY
from at2_rag.training.calibrating.multi_hop import MultiHopFigures
from at2_rag.training.calibrating.study import CalibrationFigures

# Headings, and how a row's figures `0` are written below them.
_PROBABILITIES = {
    "chunks": "{0.chunks:,}",
    "relevant": "{0.relevant:.3f}",
    "expected": "{0.expected:.2f}",
    "ECE": "{0.error:.3f}",
    "of best": "{0.error_of_best:.3f}",
    "skill": "{0.skill:.3f}",
    "calls": "{0.calls:,}",
    "AUROC": "{0.auroc:.3f}",
    "lost": "{0.lost:.3f}",
    "recognised": "{0.recognised:.3f}",
}
_MULTI_HOP = {
    "calls": "{0.calls:,}",
    "without": "{0.without:.3f}",
    "with multi-hop": "{0.with_it:.3f}",
    "difference": "{0.gain:+.3f}{0.brackets}",
}


def figure_tables(
    probabilities: Mapping[str, Sequence[CalibrationFigures]],
    multi_hop: Sequence[MultiHopFigures],
) -> list[Table]:
    """Return a table of each kind of figures that there are."""
    best = "all gold in the best 3, weights fitted without the fold"
    tables: list[tuple[str, Sequence[object], Mapping[str, str]]] = [
        *((title, rows, _PROBABILITIES) for title, rows in probabilities.items()),
        (best, multi_hop, _MULTI_HOP),
    ]
    return [_table(title, rows, columns) for title, rows, columns in tables if rows]


def _table(title: str, rows: Sequence[object], columns: Mapping[str, str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("source", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [cell.format(row) for cell in ("{0.source}", *columns.values())]
        table.add_row(*map(Text, cells))  # so that no name is read as markup
    return table


def reliability_of_sources(figures: Sequence[CalibrationFigures]) -> str:
    """Return an SVG of how often predictions came true by source, those of all first."""
    rows = {row.source: row for row in figures}
    every = rows.pop(EVERY, None)
    curves = [(source, row.reliability) for source, row in rows.items()]
    of_all = []
    if every is not None:
        of_all = [
            (f"all chunks, {EVERY}", every.reliability),
            (f"best chunks, {EVERY}", every.reliability_of_best),
            (f"answerable, {EVERY}", every.reliability_of_calls),
        ]
    series = [
        Series(label, [(x, y, None, None) for x, y in points], index < len(of_all))
        for index, (label, points) in enumerate(of_all + curves)
    ]
    return reliability_plot(series, title="Reliability on questions left out")
