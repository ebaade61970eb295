"""Tables of text, drawn for a terminal or written as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from at2_rag.report.terminal import visible

_PLAIN_WIDTH = 160  # characters of a line where the output isn't a terminal


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell, with a detail such as an interval: dim and on a second line on a terminal."""

    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the rows."""

    title: str
    header: Sequence[Cell | str]
    rows: Sequence[Sequence[Cell | str]]


def decimal(value: float, sign: str = "-") -> str:
    """Write a figure with three decimals and no zero before them: ".957"; "+" signs it always."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.3f}")


def to_markdown(table: Table) -> str:
    """Write a table as Markdown, with its title as a heading."""
    lines = [
        f"### {table.title}",
        "",
        _markdown_row(table.header),
        "|---|" + "---:|" * (len(table.header) - 1),
        *map(_markdown_row, table.rows),
    ]
    return "\n".join(lines)


def _to_rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=Text(table.title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left"
    )
    for column, cell in enumerate(table.header):
        drawn.add_column(_rich_text(cell), justify="right" if column else "left")
    for row in table.rows:
        drawn.add_row(*map(_rich_text, row))
    return drawn


def print_report(
    tables: Iterable[Table], notes: Iterable[str] = (), verdicts: Iterable[tuple[str, str]] = ()
) -> None:
    """Print tables, then notes, each a paragraph, then questions with their answers.

    The answers come last, where somebody looks once it is done: a terminal has scrolled what was
    first out of sight.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for table in tables:
        console.print(_to_rich(table))
    for note in notes:
        console.print(visible(note), style="dim", markup=False, highlight=False)
    for question, statement in verdicts:
        text = Text.assemble("\n", (visible(question), "bold"), "\n", visible(statement))
        console.print(text, highlight=False)


def _markdown_row(cells: Sequence[Cell | str]) -> str:
    texts = (f"{cell.text} {cell.detail}".strip() for cell in map(_cell, cells))
    escaped = (text.replace("|", "\\|") for text in texts)
    return f"| {' | '.join(escaped)} |"


def _cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


def _rich_text(cell: Cell | str) -> Text:
    cell = _cell(cell)
    if not cell.detail:
        return Text(visible(cell.text))
    return Text.assemble(visible(cell.text), "\n", (cell.detail, "dim"))
