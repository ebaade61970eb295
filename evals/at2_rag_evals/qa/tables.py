"""The tables of the QA report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from at2_rag.data.bootstrap import Estimate
from at2_rag_evals.names import shown
from at2_rag_evals.qa.chosen import Choice
from at2_rag_evals.qa.items import QASet
from at2_rag_evals.qa.judging import METRIC_TITLES, PRIMARY
from at2_rag_evals.qa.summary import BASELINE, FAILED, GeneratorSummary
from at2_rag_evals.report import difference_cell, estimate_cell, items_table
from at2_rag_evals.summary import MACRO
from at2_rag_evals.tables import Cell, Table

_Row: TypeAlias = list[Cell | str]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report: its heading, sentences before the tables, and the tables."""

    title: str
    remarks: Sequence[str]
    tables: Sequence[Table]


def cell_table(
    title: str, groups: Mapping[str, Mapping[str, Estimate]], *, difference: bool = False
) -> Table:
    """Lay out cells as rows and groups as columns, each with its n and number of clusters."""
    show = difference_cell if difference else estimate_cell
    header: _Row = ["setting"]
    for group, estimates in groups.items():
        size = next(iter(estimates.values()), None)
        header.append(Cell(group, f"{size.n}/{size.clusters}" if size else ""))
    rows: list[_Row] = [
        [shown(label), *(_shown(show, estimates.get(label)) for estimates in groups.values())]
        for label in dict.fromkeys(label for estimates in groups.values() for label in estimates)
    ]
    return Table(title, header, rows)


def generator_section(
    summary: GeneratorSummary, choices: Sequence[Choice] = (), chosen_on: Path | None = None
) -> Section:
    """Return a generator's part of the report, with its `choices` on another run's folder."""
    remarks = list(_unmatched_notes(summary))
    if summary.unanswered:
        reasons = ", ".join(
            f"{number} {FAILED}{shown(reason.removeprefix(FAILED))}"
            for reason, number in summary.unanswered.items()
        )
        remarks.insert(0, f"Left out of all metrics of answers by {summary.name}: {reasons}.")
    tables = [_overview(summary)]
    chosen = [choice for choice in choices if choice.generator == summary.name]
    if chosen and chosen_on is not None:
        tables.append(_choices_table(summary, chosen, chosen_on))
    return Section(f"Generator {summary.name}", remarks, [*tables, *_figure_tables(summary)])


def side_by_side(summaries: Sequence[GeneratorSummary]) -> Section:
    """Lay out several generators side by side: macro accuracy of each cell, and less `none`."""
    accuracy = {summary.name: summary.macro(PRIMARY) for summary in summaries}
    tables = [cell_table("Macro accuracy, by generator", accuracy)]
    less_baseline = {summary.name: summary.minus_baseline() for summary in summaries}
    if any(less_baseline.values()):
        title = f"Macro accuracy minus {shown(BASELINE)}, by generator"
        tables.append(cell_table(title, less_baseline, difference=True))
    return Section("Generators side by side", (), tables)


def item_tables(items: QASet) -> list[Table]:
    """Lay out how many items were judged, left out, and odd."""
    counts = Counter(item.source for item in items.items)
    tables = [items_table("judged and left out", counts, items.left_out)]
    if items.remarks:
        rows = [
            [source, ", ".join(f"{number} {remark}" for remark, number in odd.items())]
            for source, odd in items.remarks.items()
        ]
        tables.append(Table("Odd items, judged all the same", ["source", ""], rows))
    return tables


def _figure_tables(summary: GeneratorSummary) -> Iterator[Table]:
    for metric, title in METRIC_TITLES.items():
        if summary.by_source[metric]:
            yield cell_table(f"{title}, by source", summary.by_source[metric])
    for compared, groups in summary.differences.items():
        if groups:
            title = f"Accuracy: {shown(compared)} minus each other setting"
            yield cell_table(title, groups, difference=True)
    for compared, groups in summary.equal_tokens.items():
        title = f"Accuracy at equal tokens: {shown(compared)} minus each other pruner"
        yield cell_table(title, groups, difference=True)
    for title, pooled in (
        ("place of the gold chunk", summary.by_position),
        ("number of distractors", summary.by_distractors),
    ):
        if len(pooled) > 1:
            yield cell_table(f"Accuracy by {title}, sources pooled", pooled)
    yield _effort(summary)


def _unmatched_notes(summary: GeneratorSummary) -> Iterator[str]:
    """Name the pruners that can't be compared at equal tokens."""
    pruners = dict.fromkeys(cell.pruner for cell in summary.cells if cell.budget is not None)
    for ours, others in summary.mixtures.items():
        pruner = next(cell.pruner for cell in summary.cells if cell.label == ours)
        missing = [name for name in pruners if name not in (pruner, *others)]
        if missing:
            yield (
                f"Not compared with {shown(ours)} at equal tokens: "
                f"{', '.join(map(shown, missing))}, whose settings don't lie on both sides of its "
                "tokens in every source; run --pruner closed_book and --pruner none, or other "
                "budgets."
            )


def _choices_table(summary: GeneratorSummary, choices: Sequence[Choice], folder: Path) -> Table:
    """Lay out the chosen cells: accuracy there, accuracy here, and less `none` here."""
    groups = list(summary.differences.get(BASELINE, {}))
    header: _Row = ["setting", "accuracy there", Cell("accuracy", "macro")]
    header += [Cell(f"minus {shown(BASELINE)}", group) for group in groups]
    rows: list[_Row] = []
    for choice in choices:
        label = choice.cell.label
        here = _shown(estimate_cell, summary.macro(PRIMARY).get(label))
        differences = [summary.minus_baseline(group)[label] for group in groups]
        rows.append(
            [shown(label), estimate_cell(choice.accuracy), here, *map(difference_cell, differences)]
        )
    return Table(f"Budgets chosen on {folder.resolve().name}, {summary.name}", header, rows)


def _overview(summary: GeneratorSummary) -> Table:
    header: _Row = ["setting", Cell("accuracy", "macro"), f"minus {shown(BASELINE)}"]
    header += ["F1", "gold recall"]
    header += [Cell("context tokens", "macro"), "prompt tokens"]
    header += ["prune s", "prefill s", "decode s", "answer s"]
    less_baseline = summary.minus_baseline()
    rows: list[_Row] = []
    for label, totals in summary.totals.items():
        row: _Row = [
            shown(label),
            _shown(estimate_cell, summary.macro(PRIMARY).get(label)),
            _shown(difference_cell, less_baseline.get(label)),
            *(
                Cell(_shown(estimate_cell, summary.macro(metric).get(label)).text)
                for metric in ("f1", "gold_recall")
            ),
            f"{summary.context_tokens[MACRO][label]:,.0f}",
        ]
        if totals is None:
            rows.append(row + ["-"] * 5)
            continue
        seconds = (totals.prune_seconds, totals.prefill_seconds, totals.decode_seconds)
        row.append(f"{totals.prompt_tokens:,.0f}")
        row += [_number(value, ".3f") for value in (*seconds, totals.answer_seconds)]
        rows.append(row)
    return Table(f"Summary, {summary.name}", header, rows)


def _effort(summary: GeneratorSummary) -> Table:
    header = ["setting", "answer tokens", "asked again", "empty answers", "no answer", "cost"]
    header += ["peak MB, pruning", "peak MB, answering"]
    rows = []
    for label, totals in summary.totals.items():
        row = [shown(label)] + ["-"] * 7
        if totals is not None:
            counts = (totals.asked_again, totals.empty, totals.failed)
            row[1:6] = [
                _number(totals.new_tokens, ".1f"),
                *(_number(count, "d") for count in counts),
                _number(totals.cost, ".4f"),
            ]
            peaks = (totals.prune_peak, totals.answer_peak)
            row[6:] = [_number(None if peak is None else peak / 1e6, ",.0f") for peak in peaks]
        rows.append(row)
    return Table("Answers", header, rows)


def _shown(show: Callable[[Estimate], Cell], estimate: Estimate | None) -> Cell:
    return Cell("-") if estimate is None else show(estimate)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
