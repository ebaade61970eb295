"""The tables of the QA report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.qa.items import QASet
from at2_rag_evals.qa.judging import METRIC_TITLES, PRIMARY
from at2_rag_evals.qa.summary import BASELINE, CellTotals, GeneratorSummary
from at2_rag_evals.report import difference_cell, estimate_cell, items_table
from at2_rag_evals.summary import MACRO
from at2_rag_evals.tables import Cell, Table

NOTHING = Cell("-")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        title: Its heading.
        remarks: Sentences before the tables.
        tables: The tables.
    """

    title: str
    remarks: tuple[str, ...]
    tables: tuple[Table, ...]


def cell_table(
    title: str, groups: Mapping[str, Mapping[str, Estimate]], *, difference: bool = False
) -> Table:
    """Lay out cells as rows and groups as columns, each with its n and number of clusters.

    Args:
        title: The table's title.
        groups: Group -> cell -> estimate.
        difference: Whether the estimates are differences.
    """
    show = difference_cell if difference else estimate_cell
    header = [Cell("cell")]
    for group, estimates in groups.items():
        size = next(iter(estimates.values()), None)
        header.append(Cell(group, f"{size.n}/{size.clusters}" if size else ""))
    rows = [
        [
            Cell(label),
            *(
                show(estimates[label]) if label in estimates else NOTHING
                for estimates in groups.values()
            ),
        ]
        for label in dict.fromkeys(label for estimates in groups.values() for label in estimates)
    ]
    return Table(title, header, rows)


def generator_section(summary: GeneratorSummary) -> Section:
    """Return a generator's part of the report."""
    remarks = list(_unmatched_notes(summary))
    if summary.unanswered:
        reasons = ", ".join(f"{number} {reason}" for reason, number in summary.unanswered.items())
        remarks.insert(0, f"Left out of all metrics of answers by {summary.name}: {reasons}.")
    return Section(f"Generator {summary.name}", tuple(remarks), tuple(_summary_tables(summary)))


def side_by_side(summaries: Sequence[GeneratorSummary]) -> Section:
    """Lay out several generators side by side: macro accuracy of each cell, and less `none`."""
    accuracy = {summary.name: summary.macro(PRIMARY) for summary in summaries}
    tables = [cell_table("Macro accuracy, by generator", accuracy)]
    less_baseline = {summary.name: summary.minus_baseline() for summary in summaries}
    if any(less_baseline.values()):
        title = f"Macro accuracy minus {BASELINE}, by generator"
        tables.append(cell_table(title, less_baseline, difference=True))
    return Section("Generators side by side", (), tuple(tables))


def item_tables(items: QASet) -> list[Table]:
    """Lay out how many items were judged, left out, and odd."""
    counts = Counter(item.source for item in items.items)
    tables = [items_table("judged and left out", counts, items.left_out)]
    if items.remarks:
        rows = [
            [Cell(source), Cell(", ".join(f"{number} {remark}" for remark, number in odd.items()))]
            for source, odd in items.remarks.items()
        ]
        tables.append(Table("Odd items, judged all the same", [Cell("source"), Cell("")], rows))
    return tables


def _summary_tables(summary: GeneratorSummary) -> Iterator[Table]:
    yield _overview(summary)
    for metric, title in METRIC_TITLES.items():
        if summary.by_source[metric]:
            yield cell_table(f"{title}, by source", summary.by_source[metric])
    for compared, groups in summary.differences.items():
        if groups:
            title = f"Accuracy: {compared} minus each other cell"
            yield cell_table(title, groups, difference=True)
    for compared, groups in summary.equal_tokens.items():
        title = f"Accuracy at equal tokens: {compared} minus each other pruner"
        yield cell_table(title, groups, difference=True)
    if len(summary.by_position) > 1:
        title = "Accuracy by place of the gold chunk, sources pooled"
        yield cell_table(title, summary.by_position)
    if len(summary.by_distractors) > 1:
        title = "Accuracy by number of distractors, sources pooled"
        yield cell_table(title, summary.by_distractors)
    yield _effort(summary.totals)


def _unmatched_notes(summary: GeneratorSummary) -> Iterator[str]:
    """Name the pruners that can't be compared at equal tokens."""
    pruners = dict.fromkeys(cell.pruner for cell in summary.cells if cell.budget is not None)
    for ours, others in summary.mixtures.items():
        pruner = next(cell.pruner for cell in summary.cells if cell.label == ours)
        missing = [name for name in pruners if name not in (pruner, *others)]
        if missing:
            yield (
                f"Not compared with {ours} at equal tokens: {', '.join(missing)}, whose cells "
                "don't lie on both sides of its tokens in every source; run closed_book and none, "
                "or other budgets."
            )


def _overview(summary: GeneratorSummary) -> Table:
    header = [Cell("cell"), Cell("accuracy", "macro"), Cell(f"minus {BASELINE}"), Cell("F1")]
    header += [Cell("gold recall"), Cell("context tokens", "macro"), Cell("prompt tokens")]
    header += [Cell("prune s"), Cell("prefill s"), Cell("decode s"), Cell("answer s")]
    less_baseline = summary.minus_baseline()
    rows = []
    for cell in summary.cells:
        label = cell.label
        accuracy = summary.macro(PRIMARY).get(label)
        difference = less_baseline.get(label)
        rows.append(
            [
                Cell(label),
                NOTHING if accuracy is None else estimate_cell(accuracy),
                NOTHING if difference is None else difference_cell(difference),
                *(_mean(summary.macro(metric).get(label)) for metric in ("f1", "gold_recall")),
                Cell(f"{summary.context_tokens[MACRO][label]:,.0f}"),
                *_costs(summary.totals[label]),
            ]
        )
    return Table(f"Summary, {summary.name}", header, rows)


def _mean(estimate: Estimate | None) -> Cell:
    return NOTHING if estimate is None else Cell(estimate_cell(estimate).text)


def _costs(totals: CellTotals | None) -> list[Cell]:
    if totals is None:
        return [NOTHING] * 5
    seconds = (totals.prune_seconds, totals.prefill_seconds, totals.decode_seconds)
    return [
        Cell(f"{totals.prompt_tokens:,.0f}"),
        *(_number(value, ".3f") for value in (*seconds, totals.answer_seconds)),
    ]


def _effort(totals: Mapping[str, CellTotals | None]) -> Table:
    header = ["cell", "answer tokens", "asked again", "empty answers", "no answer", "cost"]
    header += ["peak MB, pruning", "peak MB, answering"]
    rows = []
    for label, cell in totals.items():
        cells = [NOTHING] * 7
        if cell is not None:
            peaks = (cell.prune_peak, cell.answer_peak)
            cells = [
                Cell(f"{cell.new_tokens:.1f}"),
                *(Cell(str(count)) for count in (cell.asked_again, cell.empty, cell.failed)),
                _number(cell.cost, ".4f"),
                *(_number(None if peak is None else peak / 1e6, ",.0f") for peak in peaks),
            ]
        rows.append([Cell(label), *cells])
    return Table("Answers", [Cell(text) for text in header], rows)


def _number(value: float | None, form: str) -> Cell:
    return NOTHING if value is None else Cell(f"{value:{form}}")
