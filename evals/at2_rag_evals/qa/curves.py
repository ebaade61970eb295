"""Plots of a run: accuracy against tokens, and by place of the gold chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from at2_rag.report.plots import Series, interval_plot
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.summary import MACRO


def token_curves(generator: Mapping[str, Any], ours: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a plot of accuracy against context tokens for "macro" and each source.

    Args:
        generator: A generator's figures, as in `summary.json`.
        ours: Names of the pruners that the plots are about.
    """
    groups = generator["by_source"][PRIMARY]
    plots = []
    for group in sorted(groups, key=lambda name: name != MACRO):
        tokens = generator["context_tokens"][group]
        by_pruner: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
        for cell in generator["cells"]:
            own = groups[group][cell["label"]]
            original = ", original order" if cell["order"] == "original" else ""
            points = by_pruner.setdefault(cell["pruner"] + original, [])
            points.append((tokens[cell["label"]], own["mean"], own["low"], own["high"]))
        series = [
            Series(name, sorted(points), name.partition(",")[0] in ours)
            for name, points in by_pruner.items()
        ]
        svg = interval_plot(
            series,
            title=f"Accuracy against tokens, {group}, {generator['name']}",
            x_label="context tokens an item",
            y_label="accuracy",
            legend=group == MACRO,
        )
        plots.append((group, Markup(svg)))  # drawn here, text escaped by matplotlib
    return plots


def position_curves(generator: Mapping[str, Any], ours: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a plot of accuracy by place of the gold chunk for "macro" and each source.

    Args:
        generator: A generator's figures by place, as in `summary.json`.
        ours: Names of the pruners that the plots are about.
    """
    plots = []
    for group in sorted(generator["accuracy"], key=lambda name: name != MACRO):
        places = generator["accuracy"][group]
        labels = list(next(iter(places.values())))
        series = [
            Series(
                label,
                [
                    (place, own[label]["mean"], own[label]["low"], own[label]["high"])
                    for place, own in enumerate(places.values())
                ],
                label.partition(",")[0] in ours,
            )
            for label in labels
        ]
        svg = interval_plot(
            series,
            title=f"Accuracy by place of the gold chunk, {group}, {generator['name']}",
            x_label="place of the gold chunk",
            y_label="accuracy",
            x_names=list(places),
            legend=group == MACRO,
        )
        plots.append((group, Markup(svg)))  # drawn here, text escaped by matplotlib
    return plots
