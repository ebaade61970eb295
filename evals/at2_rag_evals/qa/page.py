"""`report.html`: the figures, their plots, and items to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from at2_rag.report.page import render_page
from at2_rag_evals.qa.browsing import SHOWN, BrowsedItem
from at2_rag_evals.qa.curves import position_curves, token_curves
from at2_rag_evals.qa.report import machine_class
from at2_rag_evals.qa.tables import Section
from at2_rag_evals.tables import Table


def qa_page(
    report: Mapping[str, Any],
    sections: Sequence[Section],
    *,
    item_tables: Sequence[Table],
    browsed: Mapping[str, Sequence[BrowsedItem]],
    ours: Sequence[str],
) -> str:
    """Return the page.

    Args:
        report: What `summary.json` holds.
        sections: The report's sections: one a generator, in the order of its figures, and others.
        item_tables: How many items were judged and left out.
        browsed: Items to read, by source; may be empty.
        ours: Names of the pruners that the plots stress.
    """
    plots = [token_curves(figures, ours) for figures in report["generators"]]
    plots += [position_curves(figures, ours) for figures in report["gold_position"]]
    return render_page(
        "qa.html.jinja",
        package="at2_rag_evals.qa",
        facts=_facts(report),
        parts=list(zip_longest(sections, plots, fillvalue=())),
        positions=bool(report["gold_position"]),
        item_tables=item_tables,
        browsed=browsed,
        shown=SHOWN,
        notes=report["notes"],
    )


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings, git = report["settings"], report["git"]
    commit = "unknown" if git is None else git["sha"][:12] + " with changes" * git["modified"]
    peak = report["run"]["peak_memory_mb"]
    versions = ", ".join(f"{name} {version}" for name, version in report["packages"].items())
    return [
        ("Command", report["command"]),
        ("Data", ", ".join(file["name"] for file in settings["files"])),
        ("Items", f"{report['items']['judged']:,}"),
        ("Generators", ", ".join(settings["generators"])),
        *((f"Prompt, {kind}", prompt) for kind, prompt in settings["prompt"].items()),
        ("Seed", f"{settings['seed']}, {settings['resamples']:,} bootstrap draws"),
        ("Commit", commit),
        ("Machine", machine_class(report)),
        ("Peak memory", "not known on this system" if peak is None else f"{peak:,} MB"),
        ("Versions", versions),
    ]
