"""Prints a pruning result for people: one row a chunk, then what was saved."""

from __future__ import annotations

import re
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from at2_rag.report.terminal import visible
from at2_rag.results import BreakEven, PruneResult

_LONGEST_START = 400
_TITLE_WIDTH = 20


def print_result(
    result: PruneResult,
    console: Console,
    *,
    original_order: bool = False,
    break_even: BreakEven | None = None,
) -> None:
    """Print a result, and what `break_even` says was saved.

    Rows are in the order of the input if `original_order` or without scores, else best first.
    """
    if result.kept or result.dropped:
        by_index = original_order or not result.scored
        console.print(_table(result, console.encoding, original_order=by_index))
    gains = [] if break_even is None else [_gain(break_even)]
    for line in (str(result), *gains, *result.notes):
        console.print(Text(visible(line)))


def shown(text: str, encoding: str = "utf-8") -> str:
    """Return the start of a text on one line, safe to print.

    Replaces characters that would steer the terminal or reorder its line (controls, bidirectional
    overrides), lone surrogates, and what the encoding lacks.
    """
    start = re.sub(r"\s+", " ", text[:_LONGEST_START]).strip()
    return visible(start).encode(encoding, "replace").decode(encoding)


def _table(result: PruneResult, encoding: str, *, original_order: bool) -> Table:
    ranked = sorted((*result.kept, *result.dropped), key=lambda chunk: (-chunk.score, chunk.index))
    ranks = {chunk.index: rank for rank, chunk in enumerate(ranked, start=1)}
    kept = {chunk.index for chunk in result.kept}
    titles = {chunk.index: shown(chunk.title or chunk.id or "", encoding) for chunk in ranked}
    titled = any(titles.values())
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, expand=True)
    calibrated = any(chunk.probability is not None for chunk in ranked)
    for name in ("Rank", "Score", *(["Relevant"] * calibrated), "Kept"):
        table.add_column(name, justify="right", no_wrap=True)
    # Most encodings other than UTF have no ellipsis.
    overflow: Literal["ellipsis", "crop"] = "ellipsis" if encoding.startswith("utf") else "crop"
    if titled:
        table.add_column("Title", no_wrap=True, overflow=overflow, max_width=_TITLE_WIDTH)
    table.add_column("Text", no_wrap=True, overflow=overflow, ratio=1)
    for chunk in sorted(ranked, key=lambda chunk: chunk.index) if original_order else ranked:
        is_kept = chunk.index in kept
        cells = [str(ranks[chunk.index]), f"{chunk.score:.3f}"] if result.scored else ["-", "-"]
        cells += [f"{chunk.probability:.2f}"] if chunk.probability is not None else []
        cells += ["yes" if is_kept else "no"]
        cells += [titles[chunk.index]] if titled else []
        cells += [shown(chunk.kept_text, encoding)]
        table.add_row(*(Text(cell) for cell in cells), style=None if is_kept else "dim")
    return table


def _gain(break_even: BreakEven) -> str:
    parts = [f"{break_even.tokens_saved:,} tokens"]
    if break_even.seconds_saved is not None:
        parts.append(
            f"{break_even.seconds_saved:.2f} s (less {break_even.seconds_spent:.2f} s for pruning)"
        )
    if break_even.money_saved is not None:
        parts.append(f"{break_even.money_saved:.3g} of the price's currency")
    return f"Saved the generator {', '.join(parts)}."
