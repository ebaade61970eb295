"""Plots as SVG, for inlining into a page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator
except ImportError as error:
    raise ImportError(
        f'drawing reports needs matplotlib ({error}); run: pip install "at2-rag[train]"'
    ) from error

_LINE, _GRID, _COLOURS = "#1f5fa8", "#d5d9de", "viridis"
_SERIES_COLOURS = (
    *("#57606a", "#b0b6bd", "#2d7d46", "#c77b30", "#e0b13c", "#a33c3c"),
    *("#7b5ea7", "#3c9fa3", "#c25b94", "#8a6d3b", "#5b7fc2", "#6b8e23"),
)
_MARKERS = "osD^v<>pP*Xh"
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_LEAST_SPAN = 0.1  # of a line plot's values, so that noise doesn't look like a trend
_LOG_MARGIN = 1.25  # factor left free on both sides of a logarithmic axis
_WIDTH = 4.8  # inches; pages scale it down where there is less room


def line_plot(
    x: Sequence[float], y: Sequence[float], *, title: str, x_label: str, y_label: str
) -> str:
    """Return an SVG of points joined by a line, each with its value.

    The axis of values spans at least 0.1.

    Args:
        x: Places, rising.
        y: Values, as many.
        title: Read aloud in place of the picture.
        x_label: What x is.
        y_label: What y is.
    """
    figure = Figure(figsize=(_WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, marker="o", color=_LINE)
    for place, value in zip(x, y, strict=True):
        axes.annotate(
            f"{value:.3f}", (place, value), xytext=(0, 7), textcoords="offset points", ha="center"
        )
    axes.margins(x=0.15)
    middle = (min(y) + max(y)) / 2
    half = max(_LEAST_SPAN, 1.5 * (max(y) - min(y))) / 2
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure, title)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind, with their intervals.

    Attributes:
        label: What the legend calls it.
        points: x, y and the interval's ends (None where there is none) of each point.
        emphasis: Whether it is what the plot is about.
    """

    label: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    emphasis: bool = False


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
    """Return an SVG of series of points, those of one series joined by a line.

    Without `x_names` the x axis is logarithmic, and a series whose points all have x = 0 is a
    horizontal line.

    Args:
        series: What is drawn, in the legend's order; the same place has the same look in every
            plot.
        title: Read aloud in place of the picture.
        x_label: What x is.
        y_label: What y is.
        x_names: Names of the places 0, 1, ... of x, if it has such.
        lowest: Where the axis of values begins.
        legend: Whether to say what is what.
    """
    figure = Figure(figsize=(_WIDTH + 0.8 * legend, 4.4 if legend else 2.9), layout="constrained")
    axes = figure.subplots()
    points = [point for own in series for point in own.points]
    highest = max((point[1] if point[3] is None else point[3] for point in points), default=0.0)
    axes.set_ylim(lowest, lowest + max(_LEAST_SPAN, 1.06 * (highest - lowest)))
    above = [point[0] for point in points if point[0] > 0] or [1.0]
    if not x_names:
        # Limits before anything is drawn: where all is zero, those of its own have no width.
        axes.set_xscale("log")
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(min(above), max(above))
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.set_xlim(min(above) / _LOG_MARGIN, max(above) * _LOG_MARGIN)
        axes.minorticks_off()
    for number, own in enumerate(series):
        colour = _LINE if own.emphasis else _SERIES_COLOURS[number % len(_SERIES_COLOURS)]
        look: dict[str, Any] = {"color": colour, "label": own.label}
        look |= {"linewidth": 2.4 if own.emphasis else 1.2, "zorder": 3 if own.emphasis else 2}
        if not x_names and all(point[0] <= 0 for point in own.points):
            axes.axhline(own.points[0][1], linestyle=":", **look)
            continue
        x, y, low, high = zip(*own.points, strict=True)
        bars = [
            [0.0 if end is None else max(0.0, sign * (end - value))]
            for sign, ends in ((-1, low), (1, high))
            for end, value in zip(ends, y, strict=True)
        ]
        errors = np.array(bars).reshape(2, len(y))
        axes.errorbar(
            x,
            y,
            yerr=errors,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=6 if own.emphasis else 4.5,
            elinewidth=0.7,
            capsize=2,
            **look,
        )
    if x_names:
        axes.set_xticks(range(len(x_names)), x_names)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _svg(figure, title)


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its spread.

    Attributes:
        label: What stands beside it.
        value: Above 0.
        low: Where its spread begins.
        high: Where it ends.
        limit: What it is held against, if anything.
        emphasis: Whether it is what the plot is about.
    """

    label: str
    value: float
    low: float
    high: float
    limit: float | None = None
    emphasis: bool = False


def bar_plot(bars: Sequence[Bar], *, title: str, x_label: str) -> str:
    """Return an SVG of bars from the left on a logarithmic axis, the first at the top.

    A limit is a line across its bar.

    Args:
        bars: What is drawn, at least one.
        title: Read aloud in place of the picture.
        x_label: What the values are.
    """
    figure = Figure(figsize=(_WIDTH + 1.6, 0.8 + 0.27 * len(bars)), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    for place, bar in enumerate(bars):
        spread = [[max(0.0, bar.value - bar.low)], [max(0.0, bar.high - bar.value)]]
        colour = _LINE if bar.emphasis else _SERIES_COLOURS[1]
        axes.barh(place, bar.value, color=colour, height=0.7, zorder=2)
        axes.errorbar(bar.value, place, xerr=spread, color=_SERIES_COLOURS[0], capsize=2, zorder=3)
        if bar.limit is not None:
            axes.vlines(bar.limit, place - 0.45, place + 0.45, color=_SERIES_COLOURS[5], zorder=4)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(x_label)
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure, title)


def reliability_plot(series: Sequence[Series], *, title: str) -> str:
    """Return an SVG of how often what was foretold came true, beside the line of perfection.

    Args:
        series: What is drawn: probabilities and shares, both in [0, 1].
        title: Read aloud in place of the picture.
    """
    figure = Figure(figsize=(_WIDTH, _WIDTH + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1.2)
    for number, own in enumerate(series):
        colour = _LINE if own.emphasis else _SERIES_COLOURS[number % len(_SERIES_COLOURS)]
        x, y, *_ = zip(*own.points, strict=True)
        axes.plot(
            x,
            y,
            color=colour,
            label=own.label,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4.5,
            linewidth=2.4 if own.emphasis else 1.0,
            zorder=3 if own.emphasis else 2,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("mean probability of a bin")
    axes.set_ylabel("share that came true")
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _svg(figure, title)


def heat_map(
    values: npt.ArrayLike, *, title: str, x_label: str, y_label: str, highest: float | None = None
) -> str:
    """Return an SVG of a matrix as colours from zero up, first row at the bottom.

    Args:
        values: [rows, columns], none below 0.
        title: Read aloud in place of the picture.
        x_label: What a column is.
        y_label: What a row is.
        highest: Value of the brightest colour, so that several maps can be compared; None for
            the largest there is.
    """
    matrix = np.asarray(values, dtype=float)
    rows, columns = matrix.shape
    height = min(9.0, max(2.0, 0.9 + 0.85 * (_WIDTH - 1.2) * rows / max(columns, 6)))
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    top = float(matrix.max()) if highest is None else highest
    mesh = axes.pcolormesh(matrix, cmap=_COLOURS, vmin=0, vmax=top or 1.0)
    mesh.set_edgecolor("face")
    for axis, size in ((axes.xaxis, columns), (axes.yaxis, rows)):
        shown = [int(place) for place in MaxNLocator(8, integer=True).tick_values(0, size - 1)]
        places = [place for place in shown if 0 <= place < size]
        axis.set_ticks([place + 0.5 for place in places], [str(place) for place in places])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    figure.colorbar(mesh, ax=axes)
    return _svg(figure, title)


def _svg(figure: Figure, title: str) -> str:
    """Return the figure as an SVG element that is the same for the same figure."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(stream, format="svg", metadata=_METADATA | {"Title": title})
    svg = stream.getvalue()
    return re.sub(r"<svg ", '<svg role="img" ', svg[svg.index("<svg ") :], count=1)
