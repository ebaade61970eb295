"""Plots as SVG elements, to stand alone or, `themed`, in a page.

The `title` of a plot is what screen readers read in place of the picture.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator
except ImportError as error:
    raise ImportError(
        f'drawing reports needs matplotlib ({error}); run: pip install "at2-rag[train]"'
    ) from error

_INK, _GRID = "#1b1f24", "#d5d9de"
# Colours of series have a contrast of 3 or more both on white and on a dark page.
_LINE = "#2f7fd6"
_SERIES_COLOURS = (
    *("#7d8590", "#2e9152", "#c77b30", "#d1555a", "#8b6cc0", "#2f8f94"),
    *("#a67c00", "#c25b94", "#8f7548", "#6b8e23", "#5b7fc2", "#b0673f"),
)
_MARKERS = "osD^v<>pP*Xh"
_PAPER = "#ffffff"
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels come from outside: a "$" in them is a dollar sign
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
}
_APART = 0.07  # of the way between two names, from the points of a series to those of the next
_MOST_TICKS = 6  # numbers that fit under a plot side by side
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_LEAST_SPAN = 0.1  # of an axis of values, so that noise doesn't look like a trend
_LOG_MARGIN = 1.25  # factor left free on both sides of a logarithmic axis
_WIDTH = 4.4  # inches: with letters of 10 points, a phone shows them 11 pixels high
_LEGEND_FONT = 9.0  # points
_HANDLE = 36.0  # points that a mark takes in a legend, with the space around it


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind: x, y and both ends of the interval of y (None without one)."""

    label: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    emphasis: bool = False  # whether it is what the plot is about


def interval_plot(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_names: Sequence[str] = (),
    lowest: float = 0.0,
    legend: bool = True,
) -> str:
    """Return an SVG of series of points with intervals, those of one series joined by a line.

    With `x_names`, of x = 0, 1 and so on, x is no number. Without, the x axis is logarithmic, and a
    series whose points all have x = 0 is a horizontal line. The y axis begins at `lowest`.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(_WIDTH, 2.9, x_label, y_label)
        _draw_intervals(axes, series, x_names, lowest)
        return _svg(figure, title, legend=[one.label for one in series] if legend else ())


def _draw_intervals(
    axes: Axes, series: Sequence[Series], x_names: Sequence[str], lowest: float
) -> None:
    points = [point for one in series for point in one.points]
    highest = max((y if high is None else high for _, y, _, high in points), default=0.0)
    axes.set_ylim(lowest, lowest + max(_LEAST_SPAN, 1.06 * (highest - lowest)))
    if not x_names:
        # Limits before anything is drawn: where all is zero, the automatic ones have no width.
        values = [x for x, *_ in points if x > 0] or [1.0]
        axes.set_xscale("log")
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(min(values), max(values))
        if sum(min(values) <= tick <= max(values) for tick in ticks) > _MOST_TICKS:
            ticks = LogLocator().tick_values(min(values), max(values))
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.set_xlim(min(values) / _LOG_MARGIN, max(values) * _LOG_MARGIN)
        axes.minorticks_off()
    looks = _looks(series)
    apart = min(_APART, 0.6 / len(series)) if x_names else 0.0
    for number, one in enumerate(series):
        x, y, low, high = zip(*one.points, strict=True)
        if not x_names and max(x) <= 0:
            axes.axhline(y[0], linestyle=":", **looks[number] | {"marker": ""})
            continue
        beside = np.array(x) + apart * (number - (len(series) - 1) / 2)
        ends = np.array([low, high], dtype=float) - y  # NaN without an interval
        errors = np.maximum(0.0, np.nan_to_num(ends * [[-1], [1]]))
        axes.errorbar(beside, y, yerr=errors, elinewidth=0.7, capsize=2, **looks[number])
    if x_names:
        axes.set_xticks(range(len(x_names)), [name.replace("-", "-\n") for name in x_names])


def reliability_plot(series: Sequence[Series], *, title: str) -> str:
    """Return an SVG of how often predictions came true, beside the line of perfect ones.

    x is the mean probability of a bin, y the share of true outcomes, all in [0, 1].
    """
    with mpl.rc_context(_STYLE):
        labels = "mean probability of a bin", "share that came true"
        figure, axes = _axes(_WIDTH, _WIDTH, *labels)
        axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1.2)
        for one, look in zip(series, _looks(series), strict=True):
            x, y, *_ = zip(*one.points, strict=True)
            axes.plot(x, y, **look)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        return _svg(figure, title, legend=[one.label for one in series])


def heat_map(
    values: npt.ArrayLike, *, title: str, x_label: str, y_label: str, highest: float
) -> str:
    """Return an SVG of a matrix [rows, columns], first row at the bottom.

    Values are colours from 0 to `highest`, which several maps can share.
    """
    matrix = np.asarray(values, dtype=float)
    rows, columns = matrix.shape
    height = min(9.0, max(2.0, 0.9 + 0.85 * (_WIDTH - 1.2) * rows / max(columns, 6)))
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(_WIDTH, height, x_label, y_label, frame=True)
        top = highest or 1.0
        mesh = axes.pcolormesh(matrix, cmap="viridis", vmin=0, vmax=top, shading="nearest")
        mesh.set_edgecolor("face")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        figure.colorbar(mesh, ax=axes)
        return _svg(figure, title)


def themed(svg: str) -> Markup:
    """Return a plot for a page with the style sheet of reports, in the colours of its theme."""
    for colour, variable in ((_PAPER, "paper"), (_INK, "ink"), (_GRID, "rule"), (_LINE, "accent")):
        svg = re.sub(rf"(: ?){colour}\b", rf"\1var(--{variable})", svg)
    return Markup(svg)  # text was escaped when it was drawn


def _axes(
    width: float, height: float, x_label: str, y_label: str, *, frame: bool = False
) -> tuple[Figure, Axes]:
    """Return a figure and its axes, with a frame or with a grid."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x_label, ylabel=y_label)
    if not frame:
        axes.grid(color=_GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _looks(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Return how each series is drawn: by its number, the same in plots of the same series.

    The series that a plot is about has a thicker line; if it is only one, its colour is reserved.
    """
    alone = sum(one.emphasis for one in series) == 1
    return [
        {
            "color": _LINE if one.emphasis and alone else colour,
            "label": str(number),
            "linewidth": 2.4 if one.emphasis else 1.2,
            "zorder": 3 if one.emphasis else 2,
            "marker": marker,
            "markersize": 6 if one.emphasis else 4.5,
        }
        for number, (one, colour, marker) in enumerate(
            zip(series, cycle(_SERIES_COLOURS), cycle(_MARKERS))
        )
    ]


def _svg(figure: Figure, title: str, *, legend: Sequence[str] = ()) -> str:
    """Return the figure as an SVG element that is the same for the same figure.

    `legend` has the label of each series; what was drawn is labelled with the series' number.
    """
    if legend:
        width, height = figure.get_size_inches()
        longest = max(map(len, legend)) * 0.55 * _LEGEND_FONT  # points, about
        columns = max(1, int(72 * width / (_HANDLE + longest)))
        rows = math.ceil(len(legend) / columns)
        figure.set_size_inches(width, height + rows * 1.5 * _LEGEND_FONT / 72)
        drawn = figure.legend(
            loc="outside lower center", ncols=columns, frameon=False, fontsize=_LEGEND_FONT
        )
        # Only now, since matplotlib leaves labels that begin with "_" out of a legend.
        for text in drawn.get_texts():
            text.set_text(legend[int(text.get_text())])
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(stream, format="svg", metadata=_METADATA | {"Title": title})
    svg = stream.getvalue()
    return re.sub(r"<svg ", '<svg role="img" ', svg[svg.index("<svg ") :], count=1)
