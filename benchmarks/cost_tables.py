"""The cost benchmark's report: tables, and what to know beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cost_figures import Check, CostFigures
from interleaved import Spread
from peak_memory import CallPeak
from report_files import busy_remark, in_megabytes, in_milliseconds, verdict

from at2_rag_evals.tables import Cell, Table


def cost_table(figures: Sequence[CostFigures]) -> Table:
    """Lay out the times."""
    header = ["case", "removals / it", "reference / it", "ms"]
    rows = [
        [
            Cell(own.case),
            _times(own.than_removal),
            _times(own.than_reference),
            Cell(in_milliseconds(own.seconds.median)),
        ]
        for own in figures
    ]
    return Table("Time of a scored query", [Cell(text) for text in header], rows)


def memory_table(peaks: Mapping[str, CallPeak]) -> Table:
    """Lay out the peaks."""
    rows = [[Cell(name), Cell(in_megabytes(own.peak))] for name, own in peaks.items()]
    return Table("Peak memory above the loaded model", [Cell("case"), Cell("MB")], rows)


def check_table(title: str, checks: Sequence[Check]) -> Table:
    """Lay out figures against their limits."""
    rows = [
        [
            Cell(check.what),
            Cell(f"{check.value:g}"),
            Cell(f"{'>=' if check.at_least else '<='} {check.limit:g} {verdict(check.met)}"),
        ]
        for check in checks
    ]
    return Table(title, [Cell(text) for text in ("what", "value", "limit")], rows)


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what to know beside the tables, a paragraph each."""
    settings, machine = report["settings"], report["machine"]
    lengths, times = settings["prompt_tokens"], settings["runs_a_round"]
    yield (
        f"Prompts: {len(lengths)} from {settings['source']}, {min(lengths):,} to "
        f"{max(lengths):,} tokens, {settings['chunks']} chunks each; one round on each, in which "
        "every case runs, in a new order. Ratios are taken within a round: how many times as long "
        "the removals, or the reference that generates its answer, took; shown are median and "
        "quartiles. Times include tokenisation and layout."
    )
    often = {
        count: [name for name, own in times.items() if own == count] for count in times.values()
    }
    runs = "; ".join(f"{count} of each of {', '.join(own)}" for count, own in often.items())
    yield f"Runs in a round, of which the median counts: {runs}; 1 of the others."
    yield (
        f"{settings['model']}, {settings['dtype']}, {settings['threads']} threads; "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_gb']} GB."
    )
    readouts = "; ".join(f"{name}: {own}" for name, own in settings["readouts"].items())
    yield f"Head weights: {readouts}."
    batches = ", ".join(f"{size}: {s:.1f} s" for size, s in report["removal_batches"].items())
    yield (
        f"Removal read {settings['batch']} masks at a time, the fastest on the first prompt "
        f"({batches}); a forward pass takes at most {settings['batch_tokens']:,} tokens."
    )
    yield settings["reference"]
    if "cost" in report:
        yield busy_remark("The removals", report["cost"]["core_share"])
    if not all(peak["exact"] for peak in report.get("memory", {}).get("peaks", {}).values()):
        yield "This system can't reset its record of the peak: peaks are lower bounds."


def _times(spread: Spread | None) -> Cell:
    if spread is None:
        return Cell("")
    return Cell(_figures(spread.median), f"({_figures(spread.low)}-{_figures(spread.high)})")


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
