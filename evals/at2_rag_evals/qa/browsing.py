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
        keepers: For each chunk, the labels of the cells that kept it and dropped another.
    """

    item: Example
    cells: tuple[BrowsedCell, ...]
    keepers: tuple[tuple[str, ...], ...]


def browsed_items(
    items: Sequence[Example], results: Sequence[CellResult]
) -> dict[str, list[BrowsedItem]]:
    """Return the first items of each source, by source."""
    several = len({result.generator for result in results}) > 1
    shown: dict[str, list[BrowsedItem]] = {}
    for index, item in enumerate(items):
        of_source = shown.setdefault(item.source, [])
        if len(of_source) == SHOWN:
            continue
        kept = {result.cell.label: result.judged[index].pruned.kept for result in results}
        keepers = tuple(
            tuple(
                label
                for label, chunks in kept.items()
                if number in chunks and len(chunks) < len(item.chunks)
            )
            for number in range(len(item.chunks))
        )
        cells = tuple(_cell(result, index, several=several) for result in results)
        of_source.append(BrowsedItem(item, cells, keepers))
    return shown


def _cell(result: CellResult, index: int, *, several: bool) -> BrowsedCell:
    judged = result.judged[index]
    label = f"{result.generator}: {result.cell.label}" if several else result.cell.label
    if isinstance(judged.result, Failure):
        answer, verdict = judged.result.reason, "no answer"
    else:
        answer, verdict = judged.result.text, _verdict(judged.metrics)
    kept = tuple(number + 1 for number in judged.pruned.kept)
    return BrowsedCell(label, answer, verdict, kept, judged.pruned.texts)


def _verdict(metrics: Mapping[str, float | None]) -> str:
    if (primary := metrics[PRIMARY]) is not None:
        return "right" if primary else "wrong"
    if (declined := metrics["abstention"]) is not None:
        return "declined" if declined else "did not decline"
    return f"F1 {metrics['long_form_f1']:.2f}"
