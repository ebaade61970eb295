"""A benchmark's report: shown on the terminal, written as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from at2_rag_evals.tables import Table, to_markdown, to_rich

WIDTH = 80
MB = 1e6
_ENOUGH_OF_THE_CORES = 0.9


def show_report(remarks: Iterable[str], tables: Sequence[Table]) -> None:
    """Print tables and what to know beside them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for table in tables:
        console.print(to_rich(table))
    for line in remarks:
        console.print(line, markup=False, highlight=False)


def write_report(
    path: Path,
    report: Mapping[str, Any],
    *,
    title: str,
    remarks: Iterable[str],
    tables: Sequence[Table],
    plots: Mapping[str, str] | None = None,
) -> None:
    """Write a report as `.json` and `.md`, and its plots as `.svg`.

    Args:
        path: The files, without their endings; the folder is made.
        report: JSON-ready values; "command" is shown at the top of the Markdown.
        title: Heading of the Markdown.
        remarks: Paragraphs below it.
        tables: Tables below them.
        plots: SVGs below the remarks, by what they show.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}", f"    {report['command']}", *remarks]
    for number, (shown, svg) in enumerate((plots or {}).items(), start=1):
        file = path.with_name(f"{path.name}-{number}.svg")
        file.write_text(svg + "\n", encoding="utf-8")
        parts.append(f"![{shown}]({file.name})")
    parts += map(to_markdown, tables)
    text = json.dumps(report, indent=2) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    path.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def in_milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds, with a decimal where they are few."""
    value = 1000 * seconds
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def in_megabytes(size: float) -> str:
    """Return bytes as megabytes of 10^6."""
    return f"{size / MB:,.1f}"


def verdict(met: bool | None) -> str:
    """Return whether a limit was met, in words."""
    return "met" if met else "not met"


def busy_remark(what: str, share: float) -> str:
    """Return how much of the cores the work got, with a warning where it was too little.

    Args:
        what: What ran: "The unit".
        share: Of the processor time that it could use, in [0, 1].
    """
    line = f"{what} had {share:.0%} of the processor time it could use."
    if share < _ENOUGH_OF_THE_CORES:
        line += " Other work ran meanwhile: these figures are not to be relied on."
    return line
