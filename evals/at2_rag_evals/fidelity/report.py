"""The fidelity report: for people as tables, for programs as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from at2_rag_evals.fidelity.judging import METRIC_TITLES, JudgedSet
from at2_rag_evals.fidelity.summary import FidelitySummary
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.report import figures, grid, items_table, report_head
from at2_rag_evals.tables import Cell, Table, to_markdown

NOTES = (
    "Brackets are 95 % percentile bootstrap intervals over clusters of items that share a gold "
    "passage, a page or their chunks; macro is the mean of the sources' means, each source drawn "
    "from by itself. Differences are paired: * marks those whose interval excludes zero.",
    "The truth is the model's own reading of the answer with chunks, or with --unit sentence "
    "sentences of them, removed from the prompt. LDS: "
    "correlation of summed scores with the answer's logit-probability over held masks; constant "
    "scores count as 0, and items whose truth is constant are left out of it.",
    "A sum of scores depends on where they have their zero: scores that are all positive predict "
    "the number of sources kept, even random ones. Centred scores have each item's mean taken off.",
    "LDS of tempered shares takes the softmax of every system's scores (the attention baselines' "
    "logarithms) at the temperature that suits the system best on these very items: an upper "
    "bound for each, so that none loses for the form of its scores. Scores made to add up (gold, "
    "at2_answer, leave_one_out and the regressions) stay as they are.",
    "With few sources some held masks leave out one source, which leave_one_out has read itself.",
    "An insertion with k sources is over items with more than k.",
    "gold sees the labels; answer_heads_mean, at2_answer, leave_one_out, regression_32 and "
    "masked_regression read the answer, which the others don't.",
    "Seconds are those of one thread on this machine an item, the answer at hand and models "
    "loaded; removals is the same in average readings of held masks. Masks of an item are read "
    "together, prompts that begin alike sharing their beginning, and a reading counts with its "
    "part of that: one prompt read by itself costs more. Texts that a system had read for an "
    "earlier item of the run may have cost it nothing: no speed benchmark.",
)


def shares_note(systems: Iterable[FidelitySystem]) -> str:
    """Return a sentence on which systems' shares are a softmax."""
    names = ", ".join(system.name for system in systems if system.shares_are_softmax)
    return (
        "LDS of shares takes scores on a logit's scale as their softmax over an item's sources "
        f"({names or 'no system here'}) and the scores of all other systems as they are."
    )


def fidelity_tables(summary: FidelitySummary) -> Iterator[Table]:
    """Yield the tables of a run."""
    systems = list(summary.costs)
    for metric, title in METRIC_TITLES.items():
        if summary.by_source[metric]:
            yield grid(title, summary.by_source[metric], systems)
    for compared, found in summary.differences.items():
        others = [system for system in systems if system != compared]
        for metric, groups in found.items():
            if groups and others:
                title = f"{METRIC_TITLES[metric]}: {compared} minus each other system"
                yield grid(title, groups, others, difference=True)
    yield _costs_table(summary)
    yield items_table("fidelity", summary.counts, summary.left_out)


def fidelity_markdown(report: Mapping[str, Any], summary: FidelitySummary) -> str:
    """Write the report as Markdown."""
    settings = report["settings"]
    lines = report_head(
        "Fidelity eval",
        report,
        more=f"; {settings['answers']} answers, read by {settings['reading']['model']}, "
        f"{settings['masks']} held masks a keep rate; sources are {settings['unit']}s",
    )
    for table in fidelity_tables(summary):
        lines += [to_markdown(table), ""]
    lines += ["## Notes", "", *(f"- {note}" for note in report["notes"])]
    return "\n".join(lines) + "\n"


def summary_record(summary: FidelitySummary) -> dict[str, Any]:
    """Return the figures as JSON-ready values."""
    return {
        "items": dict(summary.counts),
        "left_out": {source: dict(reasons) for source, reasons in summary.left_out.items()},
        "by_source": figures(summary.by_source),
        "differences": {system: figures(found) for system, found in summary.differences.items()},
        "seconds": {system: asdict(cost) for system, cost in summary.costs.items()},
    }


def judged_lines(judged: JudgedSet) -> Iterator[str]:
    """Yield one line of JSON an item: every system's metrics and cost."""
    for own in judged.items:
        record = {
            "source": own.item.source,
            "id": own.item.id,
            "chunks": len(own.item.chunks),
            "sources": len(own.item.sources),
            "gold": sum(own.item.labels),
            "answer_tokens": own.tokens,
            "mean_log_probability": own.full,
            "seconds_a_removal": own.removal_seconds,
            "systems": {
                system: {**metrics, "seconds": own.seconds[system]}
                for system, metrics in own.metrics.items()
            },
        }
        yield json.dumps(record) + "\n"


def _costs_table(summary: FidelitySummary) -> Table:
    header = map(Cell, ("system", "seconds, mean", "median", "removals", "truncated texts"))
    rows = [
        [
            Cell(system),
            Cell(f"{cost.mean:.4f}"),
            Cell(f"{cost.median:.4f}"),
            Cell(f"{cost.removals:.2f}"),
            Cell(f"{cost.truncated:,}"),
        ]
        for system, cost in summary.costs.items()
    ]
    return Table("Cost an item", list(header), rows)
