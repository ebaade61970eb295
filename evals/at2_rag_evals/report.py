"""Reports of evals: for people as tables, for programs as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from at2_rag.data.bootstrap import LEVEL, RESAMPLES, Estimate
from at2_rag.files import write_whole
from at2_rag.report.verdict import Verdict
from at2_rag_evals.provenance import file_record, git_state, package_versions
from at2_rag_evals.request import EvalRequest, command_line
from at2_rag_evals.tables import Cell, Table, decimal, print_report, to_markdown
from at2_rag_evals.verdict import GUARD_NOTE

INTERVAL_NOTE = (
    "Brackets are 95 % percentile bootstrap intervals over clusters of items that share a gold "
    "passage, a page or their chunks; macro is the mean of the sources' means, each source drawn "
    "from by itself. Two numbers with a stroke are items and clusters. Differences are paired: * "
    "marks those whose interval excludes zero."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of a run.

    Attributes:
        record: What is written as JSON, see `run_record`.
        sections: Heading (may be empty) -> tables.
        notes: Sentences on how to read the tables.
        item_records: What is written as JSON about each item, one a line.
        verdicts: What the figures say.
        details: Added to the line on versions and seed.
    """

    record: Mapping[str, Any]
    sections: Mapping[str, Sequence[Table]]
    notes: Sequence[str]
    item_records: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Verdict]
    details: str = ""

    @property
    def tables(self) -> list[Table]:
        """The tables of all sections."""
        return [table for section in self.sections.values() for table in section]

    @property
    def guarded_notes(self) -> list[str]:
        """The notes, with that on what verdicts conclude."""
        return [*self.notes[:1], GUARD_NOTE, *self.notes[1:]]

    @property
    def json(self) -> str:
        """The record with verdicts and notes."""
        verdicts = [verdict.to_dict() for verdict in self.verdicts]
        record = {**self.record, "verdicts": verdicts, "notes": self.guarded_notes}
        return json.dumps(record, indent=2) + "\n"

    def write(self, folder: Path) -> None:
        """Write the report and what is known of each item into a folder."""
        name = self.record["eval"]
        lines = [f"# {name.capitalize()} eval", "", *verdict_lines(self.verdicts)]
        for heading, tables in self.sections.items():
            lines += [f"## {heading[:1].upper()}{heading[1:]}", ""] if heading else []
            for table in tables:
                lines += [to_markdown(table), ""]
        lines += ["## Notes", "", *(f"- {note}" for note in self.guarded_notes), ""]
        lines += provenance_lines(self.record, more=self.details)
        items = "".join(json.dumps(item) + "\n" for item in self.item_records)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "items.jsonl", items.encode())
        write_whole(folder / f"{name}.md", ("\n".join(lines) + "\n").encode())
        write_whole(folder / f"{name}.json", self.json.encode())


def publish(report: Report, *, folder: Path | None, as_json: bool) -> None:
    """Write a report into a folder, if there is one, and print it, as tables or as JSON."""
    if folder is not None:
        report.write(folder)
    if as_json:
        click.echo(report.json, nl=False)
        return
    verdicts = [(verdict.question, verdict.statement) for verdict in report.verdicts]
    print_report(report.tables, report.guarded_notes, verdicts)


def run_record(name: str, request: EvalRequest, settings: Mapping[str, object]) -> dict[str, Any]:
    """Return how a run came about, as JSON-ready values; `settings` are its own settings."""
    return {
        "eval": name,
        "command": command_line(f"at2-rag eval {name}", request),
        "settings": {
            "files": [file_record(path) for path in request.files],
            "seed": request.seed,
            "limit": request.limit,
            "resamples": RESAMPLES,
            "level": LEVEL,
            "interval": "percentile bootstrap over clusters, stratified by source",
            **settings,
        },
        "git": git_state(),
        "packages": package_versions(),
    }


def verdict_lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield the Markdown lines that a report opens with."""
    for verdict in verdicts:
        yield from (f"**{verdict.question} {verdict.answer}:** {' '.join(verdict.reasons)}", "")
    for rule in dict.fromkeys(verdict.rule for verdict in verdicts if verdict.rule):
        yield from (f"*{rule}*", "")


def provenance_lines(record: Mapping[str, Any], *, more: str = "") -> list[str]:
    """Return the last Markdown lines of a report: command, versions and seed, `more`."""
    git, settings = record["git"], record["settings"]
    commit = "" if git is None else f" at commit {git['sha'][:12]}"
    modified = " with changes" if git is not None and git["modified"] else ""
    return [
        "## Where the figures come from",
        "",
        f"    {record['command']}",
        "",
        f"at2-rag {record['packages']['at2-rag']}{commit}{modified}, seed {settings['seed']}, "
        f"{settings['resamples']} resamples{more}.",
    ]


def grid(
    title: str,
    groups: Mapping[str, Mapping[str, Estimate]],
    systems: Sequence[str],
    *,
    difference: bool = False,
) -> Table:
    """Lay out groups as rows and systems as columns."""
    show = difference_cell if difference else estimate_cell
    rows: list[list[Cell | str]] = []
    for group, estimates in groups.items():
        size = next(iter(estimates.values()))
        counts = f"{size.n}/{size.clusters}"
        rows.append([group, counts, *(show(estimates[system]) for system in systems)])
    return Table(title, ["items", "n/clusters", *systems], rows)


def estimate_cell(estimate: Estimate) -> Cell:
    """Show a figure and its interval."""
    return _cell(estimate, "-")


def difference_cell(estimate: Estimate) -> Cell:
    """Show a difference and its interval; * marks one that excludes zero."""
    return _cell(estimate, "+", mark="*" * estimate.excludes_zero)


def _cell(estimate: Estimate, sign: str, *, mark: str = "") -> Cell:
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"[{decimal(estimate.low, sign)}, {decimal(estimate.high, sign)}]"
    return Cell(decimal(estimate.mean, sign) + mark, interval)


def items_table(
    name: str, counts: Mapping[str, int], left_out: Mapping[str, Mapping[str, int]]
) -> Table:
    """Show how many items of each source were judged, and how many left out for which reason."""
    rows = []
    for source in dict.fromkeys([*counts, *left_out]):
        reasons = left_out.get(source, {})
        described = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        rows.append([source, str(counts.get(source, 0)), described or "-"])
    return Table(f"Items, {name}", ["source", "items", "left out"], rows)
