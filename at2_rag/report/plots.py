"""Plots as SVG, for inlining into a page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        f'drawing reports needs matplotlib ({error}); run: pip install "at2-rag[train]"'
    ) from error

_LINE, _GRID, _COLOURS = "#1f5fa8", "#d5d9de", "viridis"
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_LEAST_SPAN = 0.1  # of a line plot's values, so that noise doesn't look like a trend
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
