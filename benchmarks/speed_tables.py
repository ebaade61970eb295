"""The speed benchmark's report: tables, and what to know beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from peak_memory import PeakMemory
from report_files import busy_remark, in_megabytes, in_milliseconds, verdict
from speed_cases import READOUTS_OF_CASES, UNIT
from speed_figures import SpeedFigures

from at2_rag.report.plots import Bar, bar_plot
from at2_rag_evals.tables import Cell, Table

PLOT = "Whole calls over ten chunks, by one full forward pass"


def speed_table(figures: Sequence[SpeedFigures], stand_ins: Collection[str]) -> Table:
    """Lay out the speed table.

    Args:
        figures: Its rows.
        stand_ins: Cases whose head weights are stand-ins, which their rows say.
    """
    header = [Cell(text) for text in ("case", "ratio", "quartiles", "limit", "ms")]
    rows = [
        [
            Cell(own.row.title, "(stand-in)" if own.row.case in stand_ins else ""),
            Cell(f"{own.ratio.median:.3f}"),
            Cell(f"{own.ratio.low:.3f}-{own.ratio.high:.3f}" if own.row.case != UNIT else ""),
            Cell("" if own.row.limit is None else f"{own.row.limit:.2f} {verdict(own.met)}"),
            Cell(in_milliseconds(own.seconds.median)),
        ]
        for own in figures
    ]
    return Table("Speed, ratio to one full forward pass", header, rows)


def speed_plot(figures: Sequence[SpeedFigures]) -> str:
    """Return an SVG of the speed table's whole calls."""
    bars = [
        Bar(
            own.row.title,
            own.ratio.median,
            own.ratio.low,
            own.ratio.high,
            limit=own.row.limit,
            emphasis=own.row.case in READOUTS_OF_CASES,
        )
        for own in figures
        if not own.row.stages
    ]
    return bar_plot(bars, title=PLOT, x_label="ratio to one full forward pass")


def stage_table(medians: Mapping[str, Mapping[str, float]]) -> Table:
    """Lay out where each case's time goes."""
    names = list(dict.fromkeys(name for stages in medians.values() for name in stages))
    names = [name for name in names if name != "total"] + ["total"]
    rows = [
        [Cell(n), *(Cell(in_milliseconds(own[n]) if n in own else "") for own in medians.values())]
        for n in names
    ]
    header = [Cell("stage")]
    for case in medians:
        text, _, detail = case.partition(", ")
        header.append(Cell(text, detail))
    return Table("Stages, median ms", header, rows)


def memory_table(peaks: Mapping[str, Sequence[PeakMemory]]) -> Table:
    """Lay out peaks by number of chunks."""
    header = [
        Cell(text)
        for text in (
            *("chunks", "tokens", "joint", "independent", "a chunk"),
            *("states kept", "of that states"),
        )
    ]
    kept = {peak.chunks: peak for peak in peaks["kept"]}
    joint = {peak.chunks: peak for peak in peaks["joint"]}
    rows = [
        [
            Cell(str(peak.chunks)),
            Cell(f"{peak.tokens:,}"),
            Cell(in_megabytes(joint[peak.chunks].peak) if peak.chunks in joint else "too long"),
            Cell(in_megabytes(peak.peak)),
            Cell(in_megabytes(peak.peak / peak.chunks)),
            Cell(in_megabytes(kept[peak.chunks].peak)),
            Cell(in_megabytes(peak.states)),
        ]
        for peak in peaks["independent"]
    ]
    return Table("Peak memory above the loaded model, MB", header, rows)


def check_table(checks: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out memory against its limits."""
    rows = [
        [
            Cell(check["what"]),
            Cell(str(check["value"])),
            Cell(f"{check['limit']} {verdict(check['met'])}"),
        ]
        for check in checks
    ]
    return Table("Memory limits", [Cell("what"), Cell("value"), Cell("limit")], rows)


def extremes_table(extremes: Mapping[str, tuple[float, PeakMemory]]) -> Table:
    """Lay out the extreme inputs: the seconds of a call, and what one took in memory."""
    header = [
        Cell(text) for text in ("input", "sources", "tokens", "seconds", "peak", "states, if kept")
    ]
    rows = [
        [
            Cell(name),
            Cell(f"{peak.sources:,}"),
            Cell(f"{peak.tokens:,}"),
            Cell(f"{seconds:.1f}"),
            Cell(in_megabytes(peak.peak)),
            Cell(in_megabytes(peak.states)),
        ]
        for name, (seconds, peak) in extremes.items()
    ]
    return Table("Extreme inputs, independent, memory in MB", header, rows)


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what to know beside the tables, a paragraph each."""
    settings, machine, speed = report["settings"], report["machine"], report["speed"]
    lengths = settings["prompt_tokens"]
    unit = next(row for row in speed["rows"] if row["case"] == UNIT)
    yield (
        f"The unit, one full forward pass of {settings['model']}, took "
        f"{unit['seconds']['median']:.3f} s. Prompts: {len(lengths)} from {settings['source']}, "
        f"{min(lengths):,} to {max(lengths):,} tokens; rounds on each: {settings['repeats']}, all "
        "cases in a new order each time. A ratio is taken within a round; shown are median and "
        "quartiles. All rows but the question passes are whole calls of prune()."
    )
    yield (
        f"{settings['dtype']}, {settings['threads']} threads; {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['ram_gb']} GB; instructions for matrix products: "
        f"{machine['instructions'] or 'unknown'}."
    )
    readouts = "; ".join(
        f"{readout} ({own['head_weights']}; {own['passes']}): {own['layers']} of "
        f"{settings['layers']} layers"
        for readout, own in settings["readouts"].items()
    )
    yield f"Head weights: {readouts}."
    yield busy_remark("The unit", speed["core_share"])
    if not all(peak["exact"] for peak in report.get("memory", {}).get("independent", [])):
        yield "This system can't reset its record of the peak: peaks are lower bounds."
