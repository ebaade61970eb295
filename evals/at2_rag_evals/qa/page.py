"""`report.html`: what the figures say, tables, plots, items to read, where it all comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from at2_rag.data.examples import Example
from at2_rag.report.page import render_page
from at2_rag.report.plots import Series, interval_plot, themed
from at2_rag.report.verdict import Verdict
from at2_rag_evals.names import shown
from at2_rag_evals.qa.generators.base import Failure
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.report import machine_class
from at2_rag_evals.qa.run import ORDERS, CellResult
from at2_rag_evals.qa.tables import Section
from at2_rag_evals.summary import MACRO
from at2_rag_evals.tables import Table

SHOWN = 20
"""Most items of a source on the page; all are in `items.jsonl`."""

_Point = tuple[float, float, float | None, float | None]


def qa_page(
    report: Mapping[str, Any],
    sections: Sequence[Section],
    *,
    verdicts: Sequence[Verdict],
    item_tables: Sequence[Table],
    browsed: Mapping[str, Sequence[Mapping[str, Any]]],
    ours: Sequence[str],
) -> str:
    """Return the page of a report, as `summary.json` holds it.

    The first sections are those of its generators, in their order; the plots stress the pruners of
    the names `ours`.
    """
    plots = [_token_curves(figures, ours) for figures in report["generators"]]
    plots += [_position_curves(figures, ours) for figures in report["gold_position"]]
    return render_page(
        "qa.html.jinja",
        package="at2_rag_evals.qa",
        verdicts=verdicts,
        facts=_facts(report),
        chosen=_chosen(verdicts, sections),
        parts=list(zip_longest(sections, plots, fillvalue=())),
        positions=bool(report["gold_position"]),
        item_tables=item_tables,
        browsed=browsed,
        shown=SHOWN,
        notes=report["notes"],
    )


def _chosen(verdicts: Sequence[Verdict], sections: Sequence[Section]) -> list[str]:
    """Return for each section what it calls the recommended setting; "" where there is none."""
    labels = [shown(verdict.setting) if verdict.setting else "" for verdict in verdicts]
    return [*labels, *[""] * (len(sections) - len(labels))]


def browsed_items(
    items: Sequence[Example], results: Sequence[CellResult]
) -> dict[str, list[dict[str, Any]]]:
    """Return the first items of each source as the page shows them, by source.

    Each has its `item`, for each cell what it kept and answered (`cells`), and for each chunk the
    labels of the cells that kept it and dropped another (`keepers`).
    """
    several = len({result.generator for result in results}) > 1
    by_source: dict[str, list[dict[str, Any]]] = {}
    for index, item in enumerate(items):
        of_source = by_source.setdefault(item.source, [])
        if len(of_source) == SHOWN:
            continue
        kept = {result.cell.label: result.judged[index].pruned.kept for result in results}
        pruning = {
            label: chunks for label, chunks in kept.items() if len(chunks) < len(item.chunks)
        }
        keepers = [
            [shown(label) for label, chunks in pruning.items() if chunk in chunks]
            for chunk in range(len(item.chunks))
        ]
        cells = [_browsed_cell(result, index, several=several) for result in results]
        of_source.append({"item": item, "cells": cells, "keepers": keepers})
    return by_source


def _browsed_cell(result: CellResult, index: int, *, several: bool) -> dict[str, Any]:
    judged, name = result.judged[index], shown(result.cell.label)
    if isinstance(judged.result, Failure):
        answer, verdict = judged.result.reason, "no answer"
    else:
        answer, verdict = judged.result.text, _verdict(judged.metrics)
    return {
        "label": f"{result.generator}: {name}" if several else name,
        "answer": answer,
        "verdict": verdict,
        "kept": [number + 1 for number in judged.pruned.kept],
        "texts": judged.pruned.texts,
    }


def _verdict(metrics: Mapping[str, float | None]) -> str:
    if (primary := metrics[PRIMARY]) is not None:
        return "right" if primary else "wrong"
    if (declined := metrics["abstention"]) is not None:
        return "declined" if declined else "did not decline"
    return f"F1 {metrics['long_form_f1']:.2f}"


def _token_curves(generator: Mapping[str, Any], ours: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a plot of accuracy against context tokens for "macro" and each source."""
    plots = []
    for group, figures in _macro_first(generator["by_source"][PRIMARY]):
        tokens = generator["context_tokens"][group]
        series: dict[str, list[_Point]] = {}
        for cell in generator["cells"]:
            order = f", {ORDERS[cell['order']]}" if cell["order"] in ORDERS else ""
            point = _point(tokens[cell["label"]], figures[cell["label"]])
            series.setdefault(cell["pruner"] + order, []).append(point)
        plots.append(
            _plot(
                {name: sorted(points) for name, points in series.items()},
                ours,
                group,
                title=f"Accuracy against tokens, {_named(group)}, {generator['name']}",
                x_label="context tokens a question",
            )
        )
    return plots


def _position_curves(generator: Mapping[str, Any], ours: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a plot of accuracy by position of the gold chunk for "macro" and each source."""
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
                title=f"Accuracy by place of the gold chunk, {_named(group)}, {generator['name']}",
                x_label="place of the gold chunk",
                x_names=list(positions),
            )
        )
    return plots


def _macro_first(groups: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(groups.items(), key=lambda group: group[0] != MACRO)


def _named(group: str) -> str:
    return "mean of the sources" if group == MACRO else group


def _point(x: float, figure: Mapping[str, Any]) -> _Point:
    return x, figure["mean"], figure["low"], figure["high"]


def _plot(
    series: Mapping[str, Sequence[_Point]], ours: Sequence[str], group: str, **labels: Any
) -> tuple[str, Markup]:
    """Return a group and its plot; a legend stands beside "macro" alone."""
    svg = interval_plot(
        [
            Series(shown(name), points, name.partition(",")[0] in ours)
            for name, points in series.items()
        ],
        y_label="accuracy",
        legend=group == MACRO,
        **labels,
    )
    return group, themed(svg)


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings, git = report["settings"], report["git"]
    commit = "unknown" if git is None else git["sha"][:12] + " with changes" * git["modified"]
    peak = report["run"]["peak_memory_mb"]
    versions = ", ".join(f"{name} {version}" for name, version in report["packages"].items())
    others = [name for name in settings["pruners"] if shown(name) != name]
    return [
        ("Command", report["command"]),
        ("Data", ", ".join(file["name"] for file in settings["files"])),
        ("Questions", f"{report['items']['judged']:,}"),
        ("Generators", ", ".join(settings["generators"])),
        ("Settings", ", ".join(f"{shown(name)} is --pruner {name}" for name in others)),
        *((f"Prompt, {kind}", prompt) for kind, prompt in settings["prompt"].items()),
        ("Seed", f"{settings['seed']}, {settings['resamples']:,} bootstrap draws"),
        ("Commit", commit),
        ("Machine", machine_class(report)),
        ("Peak memory", "not known on this system" if peak is None else f"{peak:,} MB"),
        ("Versions", versions),
    ]
