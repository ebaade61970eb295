"""Plots of a run: accuracy against tokens, and by position of the gold chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from at2_rag.report.plots import Series, interval_plot
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.summary import MACRO

Point = tuple[float, float, float | None, float | None]


def token_curves(generator: Mapping[str, Any], ours: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a plot of accuracy against context tokens for "macro" and each source.

    Args:
        generator: A generator's figures, as in `summary.json`.
        ours: Names of the pruners to stress.
    """
    plots = []
    for group, figures in _macro_first(generator["by_source"][PRIMARY]):
        tokens = generator["context_tokens"][group]
        series: dict[str, list[Point]] = {}
        for cell in generator["cells"]:
            original = ", original order" if cell["order"] == "original" else ""
            point = _point(tokens[cell["label"]], figures[cell["label"]])
            series.setdefault(cell["pruner"] + original, []).append(point)
        plots.append(
            _plot(
                {name: sorted(points) for name, points in series.items()},
                ours,
                group,
                title=f"Accuracy against tokens, {group}, {generator['name']}",
                x_label="context tokens an item",
            )
        )
    return plots


def position_curves(generator: Mapping[str, Any], ours: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a plot of accuracy by position of the gold chunk for "macro" and each source.

    Args:
        generator: A generator's figures by position, as in `summary.json`.
        ours: Names of the pruners to stress.
    """
    plots = []
    for group, positions in _macro_first(generator["accuracy"]):
        series = {
            label: [_point(x, figures[label]) for x, figures in enumerate(positions.values())]
            for label in next(iter(positions.values()))
        }
        plots.append(
            _plot(
                series,
                ours,
                group,
                title=f"Accuracy by place of the gold chunk, {group}, {generator['name']}",
                x_label="place of the gold chunk",
                x_names=list(positions),
            )
        )
    return plots


def _macro_first(groups: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(groups.items(), key=lambda group: group[0] != MACRO)


def _point(x: float, figure: Mapping[str, Any]) -> Point:
    return x, figure["mean"], figure["low"], figure["high"]


def _plot(
    series: Mapping[str, Sequence[Point]], ours: Sequence[str], group: str, **labels: Any
) -> tuple[str, Markup]:
    """Return a group and its plot; a legend stands beside "macro" alone."""
    svg = interval_plot(
        [Series(name, points, name.partition(",")[0] in ours) for name, points in series.items()],
        y_label="accuracy",
        legend=group == MACRO,
        **labels,
    )
    return group, Markup(svg)  # drawn here, text escaped by matplotlib
