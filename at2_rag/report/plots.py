"""Plots as SVG elements, for inlining into a page.

The `title` of a plot is what screen readers read in place of the picture.
"""

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
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator
except ImportError as error:
    raise ImportError(
        f'drawing reports needs matplotlib ({error}); run: pip install "at2-rag[train]"'
    ) from error

_LINE, _GRID = "#1f5fa8", "#d5d9de"
_SERIES_COLOURS = (
    *("#57606a", "#b0b6bd", "#2d7d46", "#c77b30", "#e0b13c", "#a33c3c"),
    *("#7b5ea7", "#3c9fa3", "#c25b94", "#8a6d3b", "#5b7fc2", "#6b8e23"),
)
_MARKERS = "osD^v<>pP*Xh"
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_LEAST_SPAN = 0.1  # of an axis of values, so that noise doesn't look like a trend
_LOG_MARGIN = 1.25  # factor left free on both sides of a logarithmic axis
_WIDTH = 4.8  # inches; pages scale it down where there is less room


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
    figure, axes = _axes(_WIDTH + 0.8 * legend, 4.4 if legend else 2.9, x_label, y_label)
    points = [point for one in series for point in one.points]
    highest = max((y if high is None else high for _, y, _, high in points), default=0.0)
    axes.set_ylim(lowest, lowest + max(_LEAST_SPAN, 1.06 * (highest - lowest)))
    if not x_names:
        # Limits before anything is drawn: where all is zero, the automatic ones have no width.
        values = [x for x, *_ in points if x > 0] or [1.0]
        axes.set_xscale("log")
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(min(values), max(values))
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.set_xlim(min(values) / _LOG_MARGIN, max(values) * _LOG_MARGIN)
        axes.minorticks_off()
    for number, one in enumerate(series):
        x, y, low, high = zip(*one.points, strict=True)
        if not x_names and max(x) <= 0:
            axes.axhline(y[0], linestyle=":", **_look(number, one) | {"marker": ""})
            continue
        ends = np.array([low, high], dtype=float) - y  # NaN without an interval
        errors = np.maximum(0.0, np.nan_to_num(ends * [[-1], [1]]))
        axes.errorbar(x, y, yerr=errors, elinewidth=0.7, capsize=2, **_look(number, one))
    if x_names:
        axes.set_xticks(range(len(x_names)), x_names)
    return _svg(figure, title, legend=legend)


def reliability_plot(series: Sequence[Series], *, title: str) -> str:
    """Return an SVG of how often predictions came true, beside the line of perfect ones.

    x is the mean probability of a bin, y the share of true outcomes, all in [0, 1].
    """
    figure, axes = _axes(_WIDTH, _WIDTH + 0.8, "mean probability of a bin", "share that came true")
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1.2)
    for number, one in enumerate(series):
        x, y, *_ = zip(*one.points, strict=True)
        axes.plot(x, y, **_look(number, one))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return _svg(figure, title, legend=True)


def heat_map(
    values: npt.ArrayLike, *, title: str, x_label: str, y_label: str, highest: float
) -> str:
    """Return an SVG of a matrix [rows, columns], first row at the bottom.

    Values are colours from 0 to `highest`, which several maps can share.
    """
    matrix = np.asarray(values, dtype=float)
    rows, columns = matrix.shape
    height = min(9.0, max(2.0, 0.9 + 0.85 * (_WIDTH - 1.2) * rows / max(columns, 6)))
    figure, axes = _axes(_WIDTH, height, x_label, y_label, frame=True)
    mesh = axes.pcolormesh(matrix, cmap="viridis", vmin=0, vmax=highest or 1.0, shading="nearest")
    mesh.set_edgecolor("face")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    figure.colorbar(mesh, ax=axes)
    return _svg(figure, title)


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


def _look(number: int, series: Series) -> dict[str, Any]:
    """Return how a series is drawn: by its number, the same in every plot."""
    colour = _LINE if series.emphasis else _SERIES_COLOURS[number % len(_SERIES_COLOURS)]
    width, layer = (2.4, 3) if series.emphasis else (1.2, 2)
    return {
        "color": colour,
        "label": series.label,
        "linewidth": width,
        "zorder": layer,
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 6 if series.emphasis else 4.5,
    }


def _svg(figure: Figure, title: str, *, legend: bool = False) -> str:
    """Return the figure as an SVG element that is the same for the same figure."""
    if legend:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(stream, format="svg", metadata=_METADATA | {"Title": title})
    svg = stream.getvalue()
    return re.sub(r"<svg ", '<svg role="img" ', svg[svg.index("<svg ") :], count=1)
