"""Budgets chosen on another run, over training items, for each generator and pruner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from at2_rag.errors import InputError
from at2_rag.training.examples import Example
from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.folder_format import read_summary
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.run import CellName
from at2_rag_evals.qa.summary import BASELINE, GeneratorSummary
from at2_rag_evals.report import difference_cell, estimate_cell
from at2_rag_evals.summary import MACRO
from at2_rag_evals.tables import Cell, Table


@dataclass(frozen=True, slots=True)
class Choice:
    """The budget with which a generator answered best from what a pruner kept.

    Attributes:
        generator: The generator's name.
        cell: The pruner, the budget and the order.
        accuracy: Macro accuracy over the items it was chosen on.
    """

    generator: str
    cell: CellName
    accuracy: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        cell = {"label": self.cell.label, **asdict(self.cell)}
        return {"generator": self.generator, **cell, "accuracy": self.accuracy.to_dict()}


def choose_budgets(
    folder: Path, *, judged: Iterable[tuple[str, CellName]], items: Sequence[Example]
) -> list[Choice]:
    """Choose for each generator, pruner and order the budget with the highest macro accuracy.

    Of equal ones the one with fewer tokens is chosen.

    Args:
        folder: The output folder of a finished `at2-rag eval qa` over training items.
        judged: Generator's name and cell, of all cells that are to be judged here.
        items: The items that are to be judged here.

    Raises:
        InputError: If the folder holds no such run, has an item that is judged here, has no cell
            of a pruner and generator that are judged here, or the chosen budget isn't judged here.
    """
    _refuse_shared_items(folder, items)
    wanted = {(generator, cell) for generator, cell in judged if cell.budget is not None}
    pruners = {(generator, cell.pruner, cell.order) for generator, cell in wanted}
    found = [
        choice
        for figures in read_summary(folder)["generators"]
        for choice in _choices(figures)
        if (choice.generator, choice.cell.pruner, choice.cell.order) in pruners
    ]
    if not found:
        raise InputError(
            f"{folder.name} has no budget of a pruner and generator that are judged here; run "
            "`at2-rag eval qa` on training items with the same pruners and generators first"
        )
    for choice in found:
        if (choice.generator, choice.cell) not in wanted:
            raise InputError(
                f"the best budget of {choice.cell.pruner} for {choice.generator} in {folder.name} "
                f"is {choice.cell.budget}, which isn't judged here; add it to the budgets"
            )
    return found


def choices_table(summary: GeneratorSummary, choices: Sequence[Choice], folder: Path) -> Table:
    """Lay out a generator's chosen cells: accuracy there, accuracy here, and less `none` here."""
    against = summary.differences.get(BASELINE, {})
    header = [
        *(Cell("pruner"), Cell("budget"), Cell("accuracy there"), Cell("accuracy", "macro")),
        *(Cell(f"minus {BASELINE}", group) for group in against),
    ]
    rows = []
    for choice in choices:
        label = choice.cell.label
        order = ", original order" if choice.cell.order == "original" else ""
        here = summary.by_source[PRIMARY].get(MACRO, {}).get(label)
        rows.append(
            [
                *(Cell(choice.cell.pruner + order), Cell(str(choice.cell.budget))),
                *(
                    estimate_cell(choice.accuracy),
                    Cell("-") if here is None else estimate_cell(here),
                ),
                *(difference_cell(own[label].negated) for own in against.values()),
            ]
        )
    return Table(f"Budgets chosen on {folder.resolve().name}, {summary.name}", header, rows)


def _choices(figures: dict[str, Any]) -> list[Choice]:
    """Return the choices of one generator's figures, as in `summary.json`."""
    accuracy = figures["by_source"].get(PRIMARY, {}).get(MACRO, {})
    tokens = figures["context_tokens"][MACRO]
    best: dict[tuple[str, str | None], tuple[tuple[float, float], Choice]] = {}
    for record in figures["cells"]:
        label = record["label"]
        if record["budget"] is None or label not in accuracy:
            continue
        cell = CellName(record["pruner"], record["budget"], record["order"])
        rank = (accuracy[label]["mean"], -tokens[label])
        key = (cell.pruner, cell.order)
        if key not in best or rank > best[key][0]:
            choice = Choice(figures["name"], cell, Estimate(**accuracy[label]))
            best[key] = (rank, choice)
    return [choice for _, choice in best.values()]


def _refuse_shared_items(folder: Path, items: Sequence[Example]) -> None:
    path = folder / "items.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            seen = {json.loads(line)["content"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} can't be read ({error}); run that eval again") from error
    shared = sum(content_hash(item.query, item.chunks) in seen for item in items)
    if shared:
        raise InputError(
            f"{shared} of {len(items)} items were in the run {folder.name}, too; budgets have to "
            "be chosen on other items than those judged"
        )
