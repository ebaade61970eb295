"""What differs between two finished runs, item by item."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np

from at2_rag.data.bootstrap import RESAMPLES, Estimate
from at2_rag.errors import InputError
from at2_rag_evals.names import shown
from at2_rag_evals.qa.judging import METRIC_TITLES
from at2_rag_evals.qa.results_folder import read_items, read_summary
from at2_rag_evals.qa.run import CellName
from at2_rag_evals.qa.tables import cell_table
from at2_rag_evals.summary import MACRO, Figures, Strata, with_macro
from at2_rag_evals.tables import Table, print_report

_Cell: TypeAlias = tuple[str, CellName, str | None]
"""Generator, cell and position of the gold chunk."""

_Run: TypeAlias = dict[_Cell, dict[tuple[str, str, str], Mapping[str, Any]]]
"""Cell -> source, id and content hash of an item -> its record."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs' cells of the same name."""

    items: int  # that both have
    other_items: int  # that only one has, or whose question or chunks differ
    unmatched: tuple[str, ...]  # cells that one of them lacks
    differences: Figures  # metric -> source or "macro" -> cell -> A minus B, paired

    def tables(self) -> Iterator[Table]:
        """Yield a table for each metric."""
        for metric, groups in self.differences.items():
            if groups:
                yield cell_table(f"{METRIC_TITLES[metric]}: A minus B", groups, difference=True)

    def significant(self) -> list[str]:
        """Return a sentence for each macro difference whose interval excludes zero."""
        return [
            f"{METRIC_TITLES[metric]}, {shown(cell)}: A minus B is {estimate.mean:+.3f} "
            f"[{estimate.low:+.3f}, {estimate.high:+.3f}]."
            for metric, groups in self.differences.items()
            for cell, estimate in groups.get(MACRO, {}).items()
            if estimate.excludes_zero
        ]


def run_compare(first: Path, second: Path, *, seed: int, as_json: bool) -> None:
    """Compare two folders and print what differs."""
    comparison = compare_runs(first, second, seed=seed)
    if as_json:
        click.echo(json.dumps(asdict(comparison), indent=2))
        return
    notes = comparison.significant()
    notes = notes or ["No macro difference has an interval that excludes zero."]
    notes.append(f"{comparison.items} items in both, {comparison.other_items} in one alone.")
    if comparison.unmatched:
        notes.append(f"Settings in one alone: {'; '.join(map(shown, comparison.unmatched))}.")
    print_report(comparison.tables(), notes)


def compare_runs(first: Path, second: Path, *, seed: int) -> Comparison:
    """Compare the cells that two runs share, on the items they share.

    Cells are the same if generator, pruner, budget, order and position of the gold chunk are; where
    each run has one generator, those two are compared.

    Raises:
        InputError: If a folder holds no finished run of this version, or they share nothing.
    """
    one, two = (_read_run(folder) for folder in (first, second))
    generators = [{generator for generator, *_ in run} for run in (one, two)]
    several = max(map(len, generators)) > 1
    if len(generators[0]) == len(generators[1]) == 1:
        [name] = generators[0]
        two = {(name, *cell[1:]): records for cell, records in two.items()}
    shared = [cell for cell in one if cell in two]
    items = [{item for records in run.values() for item in records} for run in (one, two)]
    both = items[0] & items[1]
    if not shared or not both:
        raise InputError(
            f"{first.name} and {second.name} have no {'items' if shared else 'cells'} in common; "
            "compare runs over the same files with the same pruners and budgets"
        )
    differences: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in METRIC_TITLES}
    for cell in shared:
        answered = [item for item in sorted(both) if item in one[cell] and item in two[cell]]
        pairs = [(one[cell][item], two[cell][item]) for item in answered]
        for metric in METRIC_TITLES:
            for group, estimate in _paired(pairs, metric, seed=seed).items():
                differences[metric].setdefault(group, {})[_label(cell, several)] = estimate
    unmatched = [f"{_label(cell, several)} (in A)" for cell in one if cell not in two]
    unmatched += [f"{_label(cell, several)} (in B)" for cell in two if cell not in one]
    return Comparison(
        items=len(both),
        other_items=len({item[:2] for item in items[0] ^ items[1]} - {item[:2] for item in both}),
        unmatched=tuple(unmatched),
        differences=differences,
    )


def _paired(pairs: list[tuple[Any, Any]], metric: str, *, seed: int) -> dict[str, Estimate]:
    values = [[a["metrics"][metric], b["metrics"][metric]] for a, b in pairs]
    strata = Strata([a["cluster"] for a, _ in pairs], "compare", seed, RESAMPLES)
    matrix = np.array(values, dtype=np.float64).reshape(-1, 2)  # None becomes NaN
    samples = with_macro(strata.sample(matrix, [a["source"] for a, _ in pairs], metric=metric))
    return {group: sample.estimate(0, minus=1) for group, sample in samples.items()}


def _read_run(folder: Path) -> _Run:
    read_summary(folder)
    run: _Run = {}
    for record in read_items(folder):
        name = CellName(record["pruner"], record["budget"], record["order"])
        cell = (record["generator"], name, record["gold_position"])
        run.setdefault(cell, {})[record["source"], record["id"], record["content"]] = record
    return run


def _label(cell: _Cell, several: bool) -> str:
    generator, name, position = cell
    label = name.label if position is None else f"{name.label}, gold {position}"
    return f"{generator}: {label}" if several else label
