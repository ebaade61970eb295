"""A few items of each source with all that cells kept of them and answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from at2_rag.data.examples import Example
from at2_rag_evals.qa.generators.base import Failure
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.run import CellResult

SHOWN = 20
"""Most items of a source on the page; all are in `items.jsonl`."""


@dataclass(frozen=True, slots=True)
class BrowsedCell:
    """What a cell made of an item.

    Attributes:
        label: The cell, its generator before it where there are several.
        answer: The answer, or why there is none.
        verdict: "right", "wrong", or another metric's value in words.
        kept: Numbers of the kept chunks, from 1, in the order passed on.
        texts: What was passed on of them; None for the chunks as they are.
    """

    label: str
    answer: str
    verdict: str
    kept: tuple[int, ...]
    texts: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class BrowsedItem:
    """An item as the page shows it.

    Attributes:
        item: The item.
        cells: What each cell made of it.
        keepers: For each chunk, the labels of the cells that kept some but not all and this one.
    """

    item: Example
    cells: tuple[BrowsedCell, ...]
    keepers: tuple[tuple[str, ...], ...]


def browsed_items(
    items: Sequence[Example], results: Sequence[CellResult]
) -> dict[str, list[BrowsedItem]]:
    """Return the first items of each source, by source."""
    several = len({result.generator for result in results}) > 1
    found: dict[str, list[BrowsedItem]] = {}
    for place, item in enumerate(items):
        shown = found.setdefault(item.source, [])
        if len(shown) == SHOWN:
            continue
        cells = tuple(_cell(result, place, several=several) for result in results)
        pruned = {
            result.cell.label: set(result.judged[place].pruned.kept)
            for result in results
            if len(result.judged[place].pruned.kept) < len(item.chunks)
        }
        keepers = tuple(
            tuple(label for label, kept in pruned.items() if number in kept)
            for number in range(len(item.chunks))
        )
        shown.append(BrowsedItem(item, cells, keepers))
    return found


def _cell(result: CellResult, place: int, *, several: bool) -> BrowsedCell:
    judged = result.judged[place]
    label = f"{result.generator}: {result.cell.label}" if several else result.cell.label
    kept = tuple(own + 1 for own in judged.pruned.kept)
    if isinstance(judged.result, Failure):
        return BrowsedCell(label, judged.result.reason, "no answer", kept, judged.pruned.texts)
    verdict = _verdict(judged.metrics)
    return BrowsedCell(label, judged.result.text, verdict, kept, judged.pruned.texts)


def _verdict(metrics: Mapping[str, float | None]) -> str:
    if (primary := metrics[PRIMARY]) is not None:
        return "right" if primary else "wrong"
    if (declined := metrics["abstention"]) is not None:
        return "declined" if declined else "did not decline"
    return f"F1 {metrics['long_form_f1']:.2f}"
