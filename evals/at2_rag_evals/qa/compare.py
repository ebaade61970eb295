"""What differs between two finished runs, item by item."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
from rich.console import Console

from at2_rag.errors import InputError
from at2_rag_evals.bootstrap import RESAMPLES, Estimate, macro_sample
from at2_rag_evals.qa.folder_format import read_summary
from at2_rag_evals.qa.judging import METRIC_TITLES
from at2_rag_evals.qa.report import cell_table
from at2_rag_evals.summary import MACRO, Strata
from at2_rag_evals.tables import Table, to_rich

_ItemKey: TypeAlias = tuple[str, str, str]
_PLAIN_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs' cells of the same name.

    Attributes:
        cells: The cells that both have, each as the first run's label.
        unmatched: Cells that one of them lacks.
        items: Items that both have, in some cell of both.
        other_items: Items that only one has, or whose question or chunks differ.
        differences: Metric -> source or "macro" -> cell -> estimate of A minus B, paired.
    """

    cells: tuple[str, ...]
    unmatched: tuple[str, ...]
    items: int
    other_items: int
    differences: Mapping[str, Mapping[str, Mapping[str, Estimate]]]

    def tables(self) -> Iterator[Table]:
        """Yield a table a metric."""
        for metric, groups in self.differences.items():
            if groups:
                title = f"{METRIC_TITLES[metric]}: A minus B"
                # Cells may be judged on different items, so n isn't the same down a column.
                labels = [cell for cell in self.cells if all(cell in g for g in groups.values())]
                yield cell_table(title, groups, labels, difference=True)

    def significant(self) -> list[str]:
        """Return a sentence for each macro difference whose interval excludes zero."""
        found = []
        for metric, groups in self.differences.items():
            for cell, estimate in groups.get(MACRO, {}).items():
                if estimate.excludes_zero:
                    found.append(
                        f"{METRIC_TITLES[metric]}, {cell}: A minus B is {estimate.mean:+.3f} "
                        f"[{estimate.low:+.3f}, {estimate.high:+.3f}]."
                    )
        return found


def run_compare(first: Path, second: Path, *, seed: int, as_json: bool) -> None:
    """Compare two folders and print what differs.

    Raises:
        InputError: If a folder holds no finished run of this version, or they share nothing.
    """
    found = compare_runs(first, second, seed=seed)
    if as_json:
        figures = {
            metric: {
                group: {cell: estimate.to_dict() for cell, estimate in own.items()}
                for group, own in groups.items()
            }
            for metric, groups in found.differences.items()
        }
        record = {
            "items": found.items,
            "other_items": found.other_items,
            "unmatched": list(found.unmatched),
            "differences": figures,
        }
        click.echo(json.dumps(record, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for table in found.tables():
        console.print(to_rich(table))
    notes = found.significant() or ["No macro difference has an interval that excludes zero."]
    notes.append(f"{found.items} items in both, {found.other_items} left out as in one alone.")
    if found.unmatched:
        notes.append(f"Cells in one alone: {'; '.join(found.unmatched)}.")
    for note in notes:
        console.print(note, markup=False, highlight=False)


def compare_runs(first: Path, second: Path, *, seed: int, resamples: int = RESAMPLES) -> Comparison:
    """Compare the cells that two runs share, on the items they share.

    Cells are the same if generator, pruner, budget, order and place of gold are; where each run
    has one generator, those two are taken for each other.

    Args:
        first: Folder of run A.
        second: Folder of run B.
        seed: Seed of the bootstrap.
        resamples: Number of draws.

    Raises:
        InputError: If a folder holds no finished run of this version, or they share nothing.
    """
    runs = [_read_run(folder) for folder in (first, second)]
    names = [sorted({cell[0] for cell in run}) for run in runs]
    if len(names[0]) == len(names[1]) == 1 and names[0] != names[1]:
        runs[1] = {(names[0][0], *cell[1:]): own for cell, own in runs[1].items()}
    shared = [cell for cell in runs[0] if cell in runs[1]]
    several = max(map(len, names)) > 1
    keys = [{key for own in run.values() for key in own} for run in runs]
    both = keys[0] & keys[1]
    if not shared or not both:
        raise InputError(
            f"{first.name} and {second.name} have no {'items' if shared else 'cells'} in common; "
            "compare runs over the same files with the same pruners and budgets"
        )
    strata_items = sorted(both)
    differences: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in METRIC_TITLES}
    for cell in shared:
        records = [[run[cell].get(key) for key in strata_items] for run in runs]
        pairs = [(a, b) for a, b in zip(*records, strict=True) if a is not None and b is not None]
        for metric in METRIC_TITLES:
            estimates = _paired(pairs, metric, seed=seed, resamples=resamples)
            for group, estimate in estimates.items():
                differences[metric].setdefault(group, {})[_label(cell, several)] = estimate
    return Comparison(
        cells=tuple(_label(cell, several) for cell in shared),
        unmatched=tuple(
            f"{_label(cell, several)} (in {name})"
            for name, run, other in (("A", runs[0], runs[1]), ("B", runs[1], runs[0]))
            for cell in run
            if cell not in other
        ),
        items=len(both),
        other_items=len({key[:2] for key in keys[0] ^ keys[1]} - {key[:2] for key in both}),
        differences=differences,
    )


def _paired(
    pairs: list[tuple[Any, Any]], metric: str, *, seed: int, resamples: int
) -> dict[str, Estimate]:
    values = [[a["metrics"][metric], b["metrics"][metric]] for a, b in pairs]
    strata = Strata([a["cluster"] for a, _ in pairs], "compare", seed, resamples)
    matrix = np.array(values, dtype=np.float64).reshape(-1, 2)  # None becomes NaN
    samples = strata.sample(matrix, [a["source"] for a, _ in pairs], metric=metric)
    if samples:
        samples[MACRO] = macro_sample(list(samples.values()))
    return {group: sample.estimate(0, minus=1) for group, sample in samples.items()}


def _read_run(folder: Path) -> dict[tuple[Any, ...], dict[_ItemKey, Any]]:
    """Return cell -> item -> its line."""
    read_summary(folder)
    found: dict[tuple[Any, ...], dict[_ItemKey, Any]] = {}
    path = folder / "items.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                own = json.loads(line)
                cell = (
                    *(own["generator"], own["pruner"], own["budget"], own["order"]),
                    own["gold_position"],
                )
                found.setdefault(cell, {})[own["source"], own["id"], own["content"]] = own
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} can't be read ({error}); run the eval again") from error
    return found


def _label(cell: tuple[Any, ...], several: bool) -> str:
    generator, pruner, budget, order, place = cell
    parts = [pruner, budget, "original order" if order == "original" else None]
    parts.append(None if place is None else f"gold {place}")
    label = ", ".join(part for part in parts if part is not None)
    return f"{generator}: {label}" if several else label
