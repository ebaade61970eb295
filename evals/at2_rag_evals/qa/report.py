"""The QA report: for people as tables, for programs as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from at2_rag.data.examples import Example
from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.items import QASet, kind_of
from at2_rag_evals.qa.judging import METRIC_TITLES, PRIMARY
from at2_rag_evals.qa.run import CellResult
from at2_rag_evals.qa.summary import BASELINE, CellTotals, GeneratorSummary
from at2_rag_evals.report import (
    difference_cell,
    estimate_cell,
    figures,
    items_table,
    report_head,
)
from at2_rag_evals.summary import MACRO
from at2_rag_evals.tables import Cell, Table, to_markdown

NOTES = (
    "Accuracy: a reference answer's normalised tokens are a run of the prediction's; a yes or no "
    "is its first word. Long-form items are judged by token F1 and unanswerable ones by "
    "abstention, each apart.",
    "Brackets are 95 % percentile bootstrap intervals over clusters of items that share a gold "
    "passage, a page or their chunks; macro is the mean of the sources' means, each source drawn "
    "from by itself. Differences are paired: * marks those whose interval excludes zero.",
    "At equal tokens another pruner gets, in each source, the mean context tokens of the cell it "
    "is compared with: by its own cell within 2 % of them, or by a mixture of its two cells next "
    "to them, closed_book and none included, whose expected accuracy is taken (which cells, and in "
    "what shares, is in summary.json). More budgets near it would do better by a pruner whose "
    "accuracy rises ever less with tokens.",
    "Peak MB is the main memory that the process took, at its highest, above what it held before a "
    "pruner's cells were pruned, or a cell answered; a model counts where it is first needed. What "
    "was stored before takes none.",
    "Oracle keeps the gold chunks and closed_book none, whatever the budget. Tokens are "
    "counted by the generator's tokenizer. All seconds are wall clock of the run that made the "
    "answer, models loaded; an answer's share of its batch.",
    "Distractors mined with BM25 are adversarial to BM25; constructed distractors are easier than "
    "those a web-scale retriever brings.",
)
_NONE = Cell("-")


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


def generator_section(summary: GeneratorSummary) -> Section:
    """Return a generator's part of the report."""
    remarks = [_unanswered_note(summary)] if summary.unanswered else []
    remarks += _unmatched_notes(summary)
    return Section(f"Generator {summary.name}", tuple(remarks), tuple(summary_tables(summary)))


def summary_tables(summary: GeneratorSummary) -> Iterator[Table]:
    """Yield the tables of one generator."""
    labels = [cell.label for cell in summary.cells]
    yield _overview(summary, labels)
    for metric, title in METRIC_TITLES.items():
        if summary.by_source[metric]:
            yield cell_table(f"{title}, by source", summary.by_source[metric], labels)
    for compared, groups in summary.differences.items():
        if groups:
            yield cell_table(
                f"Accuracy: {compared} minus each other cell",
                groups,
                [label for label in labels if label != compared],
                difference=True,
            )
    for compared, groups in summary.equal_tokens.items():
        yield cell_table(
            f"Accuracy at equal tokens: {compared} minus each other pruner",
            groups,
            list(groups[MACRO]),
            difference=True,
        )
    for title, own in (
        ("by place of the gold chunk", summary.by_position),
        ("by number of distractors", summary.by_distractors),
    ):
        if len(own) > 1:
            yield cell_table(f"Accuracy {title}, sources pooled", own, labels)
    yield _effort(summary.totals)


def cell_table(
    title: str,
    groups: Mapping[str, Mapping[str, Estimate]],
    labels: Sequence[str],
    *,
    difference: bool = False,
) -> Table:
    """Lay out cells as rows and groups as columns, each with its n and number of clusters."""
    show = difference_cell if difference else estimate_cell
    header = [Cell("cell")]
    for group, own in groups.items():
        size = next(iter(own.values()))
        header.append(Cell(group, f"{size.n}/{size.clusters}"))
    rows = [[Cell(label), *(show(own[label]) for own in groups.values())] for label in labels]
    return Table(title, header, rows)


def qa_markdown(report: Mapping[str, Any], items: QASet, sections: Sequence[Section]) -> str:
    """Write the report as Markdown."""
    lines = report_head("QA eval", report, more=f", on {machine_class(report)}")
    for section in sections:
        lines += [f"## {section.title}", ""]
        for remark in section.remarks:
            lines += [remark, ""]
        for table in section.tables:
            lines += [to_markdown(table), ""]
    lines += ["## Items", ""]
    for table in item_tables(items):
        lines += [to_markdown(table), ""]
    lines += ["## Notes", "", *(f"- {note}" for note in report["notes"])]
    return "\n".join(lines) + "\n"


def machine_class(report: Mapping[str, Any]) -> str:
    """Say what the run's generators ran on: "Linux x86_64, 2 cores, float32 on cpu"."""
    machine = report["run"]["machine"]
    types = {
        f"{own['dtype']} on {own['device']}"
        for own in report["settings"]["generators"].values()
        if "dtype" in own
    }
    kind = f"{machine['system']} {machine['processor']}, {machine['cores']} cores"
    return ", ".join([kind, *sorted(types)])


def _unanswered_note(summary: GeneratorSummary) -> str:
    reasons = ", ".join(f"{number} {reason}" for reason, number in summary.unanswered.items())
    return f"Left out of all metrics of answers by {summary.name}: {reasons}."


def _unmatched_notes(summary: GeneratorSummary) -> Iterator[str]:
    """Say which pruners can't be compared at equal tokens."""
    pruners = dict.fromkeys(cell.pruner for cell in summary.cells if cell.budget is not None)
    for ours, others in summary.mixtures.items():
        own = next(cell.pruner for cell in summary.cells if cell.label == ours)
        missing = [name for name in pruners if name not in (own, *others)]
        if missing:
            yield (
                f"Not compared with {ours} at equal tokens: {', '.join(missing)}, whose cells "
                "don't reach its tokens from both sides in every source; closed_book and none are "
                "ends where they are run."
            )


def item_tables(items: QASet) -> list[Table]:
    """Lay out how many items were judged, left out, and odd."""
    counts: dict[str, int] = {}
    for item in items.items:
        counts[item.source] = counts.get(item.source, 0) + 1
    tables = [items_table("judged and left out", counts, items.left_out)]
    if items.remarks:
        rows = [
            [Cell(source), Cell(", ".join(f"{number} {remark}" for remark, number in own.items()))]
            for source, own in items.remarks.items()
        ]
        tables.append(Table("Odd items, judged all the same", [Cell("source"), Cell("")], rows))
    return tables


def summary_record(summary: GeneratorSummary) -> dict[str, Any]:
    """Return a generator's figures as JSON-ready values."""
    pooled = figures({"position": summary.by_position, "distractors": summary.by_distractors})
    return {
        "name": summary.name,
        "cells": [{"label": cell.label, **asdict(cell)} for cell in summary.cells],
        "by_source": figures(summary.by_source),
        "differences": figures(summary.differences),
        "equal_tokens": figures(summary.equal_tokens),
        "mixtures": {
            ours: {
                pruner: {source: asdict(own) for source, own in by_source.items()}
                for pruner, by_source in others.items()
            }
            for ours, others in summary.mixtures.items()
        },
        "by_position": pooled["position"],
        "by_distractors": pooled["distractors"],
        "context_tokens": {group: dict(own) for group, own in summary.context_tokens.items()},
        "totals": {
            label: None if totals is None else asdict(totals)
            for label, totals in summary.totals.items()
        },
        "unanswered": dict(summary.unanswered),
    }


def item_lines(
    items: Sequence[Example],
    results: Sequence[CellResult],
    clusters: Sequence[int],
    *,
    gold_position: str | None = None,
) -> Iterator[str]:
    """Yield one line of JSON an item and cell.

    Args:
        items: The items.
        results: The cells.
        clusters: Each item's cluster.
        gold_position: Where the gold chunk was moved to; None for items as they are.
    """
    for result in results:
        for item, judged, cluster in zip(items, result.judged, clusters, strict=True):
            answer = judged.result if isinstance(judged.result, Answer) else None
            failure = judged.result if isinstance(judged.result, Failure) else None
            record = {
                "generator": result.generator,
                **asdict(result.cell),
                "gold_position": gold_position,
                "source": item.source,
                "id": item.id,
                "content": content_hash(item.query, item.chunks),
                "cluster": cluster,
                "kind": kind_of(item),
                "chunks": len(item.chunks),
                "gold": [place for place, label in enumerate(item.labels) if label],
                "kept": list(judged.pruned.kept),
                "texts": judged.pruned.texts,
                "context_tokens": judged.context_tokens,
                "prune_seconds": judged.pruned.seconds,
                "answer": None if answer is None else asdict(answer),
                "error": None if failure is None else failure.reason,
                "metrics": dict(judged.metrics),
            }
            yield json.dumps(record) + "\n"


def _overview(summary: GeneratorSummary, labels: Sequence[str]) -> Table:
    header = [
        *(Cell("cell"), Cell("accuracy", "macro"), Cell(f"minus {BASELINE}"), Cell("F1")),
        *(Cell("gold recall"), Cell("context tokens", "macro"), Cell("prompt tokens")),
        *(Cell("prune s"), Cell("prefill s"), Cell("decode s"), Cell("answer s")),
    ]
    to_none = _minus_baseline(summary)
    rows = []
    for label in labels:
        totals = summary.totals[label]
        rows.append(
            [
                Cell(label),
                _macro(summary, PRIMARY, label),
                to_none.get(label, _NONE),
                _macro(summary, "f1", label, interval=False),
                _macro(summary, "gold_recall", label, interval=False),
                Cell(f"{summary.context_tokens[MACRO][label]:,.0f}"),
                *([_NONE] * 5 if totals is None else _costs(totals)),
            ]
        )
    return Table(f"Summary, {summary.name}", header, rows)


def _macro(summary: GeneratorSummary, metric: str, label: str, *, interval: bool = True) -> Cell:
    groups = summary.by_source[metric]
    if MACRO not in groups:
        return _NONE
    shown = estimate_cell(groups[MACRO][label])
    return shown if interval else Cell(shown.text)


def _minus_baseline(summary: GeneratorSummary) -> dict[str, Cell]:
    """Return each cell's accuracy minus that of `none`, where it was run."""
    against = summary.differences.get(BASELINE, {}).get(MACRO, {})
    return {label: difference_cell(estimate.negated) for label, estimate in against.items()}


def _costs(totals: CellTotals) -> list[Cell]:
    return [
        Cell(f"{totals.prompt_tokens:,.0f}"),
        *(
            _NONE if value is None else Cell(f"{value:.3f}")
            for value in (
                totals.prune_seconds,
                totals.prefill_seconds,
                totals.decode_seconds,
                totals.answer_seconds,
            )
        ),
    ]


def _effort(totals: Mapping[str, CellTotals | None]) -> Table:
    header = ["cell", "answer tokens", "asked again", "empty answers", "no answer", "cost"]
    header += ["peak MB, pruning", "peak MB, answering"]
    rows = []
    for label, own in totals.items():
        if own is None:
            rows.append([Cell(label), *[_NONE] * 7])
            continue
        numbers = (own.asked_again, own.empty, own.failed)
        cost = _NONE if own.cost is None else Cell(f"{own.cost:.4f}")
        peaks = (own.prune_peak, own.answer_peak)
        rows.append(
            [
                *(Cell(label), Cell(f"{own.new_tokens:.1f}"), *(Cell(str(n)) for n in numbers)),
                *(cost, *(_NONE if peak is None else Cell(f"{peak / 1e6:,.0f}") for peak in peaks)),
            ]
        )
    return Table("Answers", [Cell(text) for text in header], rows)
