"""The ranking report: for people as tables, for programs as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.metrics import METRIC_TITLES
from at2_rag_evals.ranking.rating import RatedSet
from at2_rag_evals.summary import OURS, SetSummary
from at2_rag_evals.tables import Cell, Table, to_markdown

NOTES = (
    "Brackets are 95 % percentile bootstrap intervals over clusters of items that share a gold "
    "passage, a page or their chunks; macro is the mean of the sources' means, each source drawn "
    "from by itself. Differences are paired: * marks those whose interval excludes zero.",
    "Chunks with equal scores keep their input order.",
    "Distractors mined with BM25 are adversarial to BM25: on sources built that way it does worse "
    "than on chunks found by another retriever. Distractors that were constructed or drawn at "
    "random are easier than those a web-scale retriever brings.",
    "Milliseconds are medians of this run's wall clock an item, texts that a system had seen "
    "before included at no cost: no speed comparison.",
)


def summary_tables(summary: SetSummary) -> Iterator[Table]:
    """Yield the tables of one set."""
    systems = list(summary.totals)
    for metric, title in METRIC_TITLES.items():
        if summary.by_source[metric]:
            yield grid(f"{title}, {summary.name}", summary.by_source[metric], systems)
    for metric, groups in summary.differences.items():
        if groups:
            title = f"{METRIC_TITLES[metric]}, {summary.name}: {OURS} minus each other system"
            others = [system for system in systems if system != OURS]
            yield grid(title, groups, others, difference=True)
    for metric, title in METRIC_TITLES.items():
        sizes = summary.by_size[metric]
        if len(summary.size_counts) > 1 and sizes:
            ordered = {name: sizes[name] for name in summary.size_counts if name in sizes}
            yield grid(
                f"{title}, {summary.name}, by number of chunks an item, sources pooled",
                ordered,
                systems,
            )
    yield items_table(summary.name, summary.counts, summary.left_out)
    yield _systems_table(summary)


def report_head(title: str, report: Mapping[str, Any], *, more: str = "") -> list[str]:
    """Return the first lines of a report in Markdown: title, command, and what it ran from.

    Args:
        title: The title.
        report: The report as JSON-ready values.
        more: Added to the sentence on versions and seed.
    """
    git, settings = report["git"], report["settings"]
    commit = "" if git is None else f" at commit {git['sha'][:12]}"
    modified = " with changes" if git is not None and git["modified"] else ""
    return [
        f"# {title}",
        "",
        f"    {report['command']}",
        "",
        f"at2-rag {report['packages']['at2-rag']}{commit}{modified}, seed {settings['seed']}, "
        f"{settings['resamples']} resamples{more}.",
        "",
    ]


def report_markdown(report: Mapping[str, Any], summaries: Sequence[SetSummary]) -> str:
    """Write the report as Markdown."""
    lines = report_head("Ranking eval", report)
    for summary in summaries:
        lines += [f"## {summary.name[:1].upper()}{summary.name[1:]}", ""]
        for table in summary_tables(summary):
            lines += [to_markdown(table), ""]
    lines += ["## Notes", "", *(f"- {note}" for note in NOTES)]
    return "\n".join(lines) + "\n"


def set_record(summary: SetSummary) -> dict[str, Any]:
    """Return a set's figures as JSON-ready values."""
    return {
        "name": summary.name,
        "items": dict(summary.counts),
        "left_out": {source: dict(reasons) for source, reasons in summary.left_out.items()},
        "by_source": figures(summary.by_source),
        "differences": figures(summary.differences),
        "by_chunks": figures(summary.by_size),
        "items_by_chunks": {name: dict(own) for name, own in summary.size_counts.items()},
        "systems": {
            system: {
                "chunks": totals.chunks,
                "truncated_chunks": totals.truncated,
                "median_seconds": totals.median_seconds,
            }
            for system, totals in summary.totals.items()
        },
    }


def item_lines(rated: RatedSet) -> Iterator[str]:
    """Yield one line of JSON an item: every system's metrics and ranks of the gold chunks."""
    for place, item in enumerate(rated.item_set.items):
        record = {
            "set": rated.item_set.name,
            "source": item.source,
            "id": item.id,
            "chunks": len(item.chunks),
            "gold": sum(item.labels),
            "systems": {
                system: {
                    **ratings[place].metrics,
                    "gold_ranks": list(ratings[place].gold_ranks),
                    "truncated": ratings[place].truncated,
                }
                for system, ratings in rated.ratings.items()
            },
        }
        yield json.dumps(record) + "\n"


def grid(
    title: str,
    groups: Mapping[str, Mapping[str, Estimate]],
    systems: Sequence[str],
    *,
    difference: bool = False,
) -> Table:
    """Lay out groups as rows and systems as columns."""
    show = difference_cell if difference else estimate_cell
    rows = []
    for group, estimates in groups.items():
        size = next(iter(estimates.values()))
        rows.append(
            [
                Cell(group),
                Cell(f"{size.n}/{size.clusters}"),
                *(show(estimates[system]) for system in systems),
            ]
        )
    header = [Cell("items"), Cell("n/clusters"), *map(Cell, systems)]
    return Table(title, header, rows)


def estimate_cell(estimate: Estimate) -> Cell:
    """Show a figure and its interval."""
    if estimate.low is None or estimate.high is None:
        return Cell(_number(estimate.mean))
    return Cell(_number(estimate.mean), f"[{_number(estimate.low)}, {_number(estimate.high)}]")


def difference_cell(estimate: Estimate) -> Cell:
    """Show a difference and its interval; * marks one that excludes zero."""
    if estimate.low is None or estimate.high is None:
        return Cell(_number(estimate.mean, "+"))
    interval = f"[{_number(estimate.low, '+')}, {_number(estimate.high, '+')}]"
    return Cell(_number(estimate.mean, "+") + "*" * estimate.excludes_zero, interval)


def _number(value: float, sign: str = "-") -> str:
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.3f}")


def items_table(
    name: str, counts: Mapping[str, int], left_out: Mapping[str, Mapping[str, int]]
) -> Table:
    """Lay out how many items of each source were judged and left out.

    Args:
        name: What the set is called.
        counts: Source -> number of items.
        left_out: Source -> reason -> number of examples left out.
    """
    rows = []
    for source in dict.fromkeys([*counts, *left_out]):
        reasons = left_out.get(source, {})
        described = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        rows.append([Cell(source), Cell(str(counts.get(source, 0))), Cell(described or "-")])
    header = [Cell("source"), Cell("items"), Cell("left out")]
    return Table(f"Items, {name}", header, rows)


def _systems_table(summary: SetSummary) -> Table:
    header = [Cell("system"), Cell("chunks"), Cell("truncated"), Cell("ms an item")]
    rows = [
        [
            Cell(system),
            Cell(f"{totals.chunks:,}"),
            Cell(f"{totals.truncated:,}"),
            Cell(f"{1000 * totals.median_seconds:.1f}"),
        ]
        for system, totals in summary.totals.items()
    ]
    return Table(f"Systems, {summary.name}", header, rows)


def figures(
    values: Mapping[str, Mapping[str, Mapping[str, Estimate]]],
) -> dict[str, dict[str, dict[str, dict[str, float | int | None]]]]:
    """Return metric -> group -> system -> figures as JSON-ready values."""
    return {
        metric: {
            group: {system: estimate.to_dict() for system, estimate in estimates.items()}
            for group, estimates in groups.items()
        }
        for metric, groups in values.items()
    }
