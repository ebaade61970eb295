"""Budgets chosen on another run, over training items, for each generator and pruner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from at2_rag.data.bootstrap import Estimate
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.results_folder import read_items, read_summary
from at2_rag_evals.qa.run import CellName
from at2_rag_evals.summary import MACRO

# Settings of generators and pruners that have to agree; versions and devices may differ.
_FILES = ("model_files_sha256", "files_sha256", "head_weights_sha256")
_COMPARED = (*_FILES, "reading", "answer_tokens")


@dataclass(frozen=True, slots=True)
class Choice:
    """The cell with the budget at which a generator answered best from what a pruner kept."""

    generator: str
    cell: CellName
    accuracy: Estimate  # macro, over the items it was chosen on

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        cell = {"label": self.cell.label, **asdict(self.cell)}
        return {"generator": self.generator, **cell, "accuracy": asdict(self.accuracy)}


def choose_budgets(
    folder: Path,
    *,
    judged: Mapping[str, Sequence[CellName]],
    items: Sequence[Example],
    settings: Mapping[str, Any],
) -> list[Choice]:
    """Choose for each generator, pruner and order the budget with the highest macro accuracy.

    Of equal ones the one with fewer tokens is chosen. Pruners that weren't run there have none.

    Args:
        folder: The output folder of a finished `at2-rag eval qa` over training items.
        judged: Generator's name -> its cells in this run.
        items: The items of this run.
        settings: The settings of this run, as in `summary.json`.

    Raises:
        InputError: If budgets can't be chosen on that run for this one.
    """
    summary = read_summary(folder)
    if summary["settings"]["gold_position"]:
        raise InputError(
            f"{folder.name} is a run with --gold-position, which has no budgets to choose from; "
            "name a run without it"
        )
    _refuse_shared_items(folder, items)
    curves = {name: {(cell.pruner, cell.order) for cell in cells} for name, cells in judged.items()}
    choices = [
        choice
        for generator in summary["generators"]
        for choice in _choices(generator)
        if (choice.cell.pruner, choice.cell.order) in curves.get(choice.generator, ())
    ]
    if not choices:
        raise InputError(
            f"{folder.name} has no budget of a pruner and generator that are judged here; run "
            "`at2-rag eval qa` on training items with the same pruners and generators first"
        )
    _refuse_other_settings(folder, choices, summary["settings"], settings)
    missing = [choice for choice in choices if choice.cell not in judged[choice.generator]]
    if missing:
        named = "; ".join(f"{choice.cell.label} for {choice.generator}" for choice in missing)
        raise InputError(
            f"the best budgets in {folder.name} aren't all judged here; add these: {named}"
        )
    return choices


def _choices(figures: dict[str, Any]) -> list[Choice]:
    accuracy = figures["by_source"].get(PRIMARY, {}).get(MACRO, {})
    tokens = figures["context_tokens"][MACRO]
    best: dict[tuple[str, str | None], tuple[tuple[float, float], Choice]] = {}
    for record in figures["cells"]:
        label = record["label"]
        if record["budget"] is None or label not in accuracy:
            continue
        cell = CellName(record["pruner"], record["budget"], record["order"])
        rank = (round(accuracy[label]["mean"], 12), -tokens[label])  # digits behind are rounding
        key = (cell.pruner, cell.order)
        if key not in best or rank > best[key][0]:
            best[key] = rank, Choice(figures["name"], cell, Estimate(**accuracy[label]))
    return [choice for _, choice in best.values()]


def _refuse_shared_items(folder: Path, items: Sequence[Example]) -> None:
    records = read_items(folder)
    names = {(record["source"], record["id"]) for record in records}
    contents = {record["content"] for record in records}
    shared = sum(
        (item.source, item.id) in names or content_hash(item.query, item.chunks) in contents
        for item in items
    )
    if shared:
        raise InputError(
            f"{shared} of {len(items)} items were in the run {folder.name}, too; budgets have to "
            "be chosen on other items than those judged"
        )


def _refuse_other_settings(
    folder: Path, choices: Sequence[Choice], there: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
    other = [] if there["prompt"] == here["prompt"] else ["the prompt"]
    for kind, names in (
        ("generators", [choice.generator for choice in choices]),
        ("pruners", [choice.cell.pruner for choice in choices]),
    ):
        for name in dict.fromkeys(names):
            one, two = (run[kind].get(name, {}) for run in (there, here))
            keys = [key for key in _COMPARED if one.get(key) != two.get(key)]
            other += [f"{key} of {name}" for key in keys]
    if other:
        raise InputError(
            f"{folder.name} was run with something else than is judged here: {', '.join(other)}; "
            "choose budgets on a run with the same"
        )
