"""The speed benchmark's report: tables, and what to know beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peak_memory import PeakMemory
from speed_cases import UNIT
from speed_figures import MB, SpeedFigures

from at2_rag_evals.tables import Cell, Table, to_markdown

_ENOUGH_OF_THE_CORES = 0.9


def speed_table(figures: Sequence[SpeedFigures]) -> Table:
    """Lay out the speed table."""
    header = [Cell(text) for text in ("case", "ratio", "quartiles", "limit", "ms")]
    rows = [
        [
            Cell(own.row.title),
            Cell(f"{own.ratio.median:.3f}"),
            Cell(f"{own.ratio.low:.3f}-{own.ratio.high:.3f}" if own.row.case != UNIT else ""),
            Cell("" if own.row.limit is None else f"{own.row.limit:.2f} {_verdict(own.met)}"),
            Cell(_milliseconds(own.seconds.median)),
        ]
        for own in figures
    ]
    return Table("Speed, ratio to one full forward pass", header, rows)


def stage_table(medians: Mapping[str, Mapping[str, float]]) -> Table:
    """Lay out where each case's time goes."""
    names = list(dict.fromkeys(name for stages in medians.values() for name in stages))
    names = [name for name in names if name != "total"] + ["total"]
    rows = [
        [Cell(n), *(Cell(_milliseconds(own[n]) if n in own else "") for own in medians.values())]
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
        for text in ("chunks", "tokens", "joint", "independent", "states", "beyond", "a chunk")
    ]
    joint = {peak.chunks: peak for peak in peaks["joint"]}
    rows = [
        [
            Cell(str(peak.chunks)),
            Cell(f"{peak.tokens:,}"),
            Cell(_megabytes(joint[peak.chunks].peak) if peak.chunks in joint else "too long"),
            Cell(_megabytes(peak.peak)),
            Cell(_megabytes(peak.states)),
            Cell(_megabytes(peak.beyond_states)),
            Cell(_megabytes(peak.beyond_states / peak.chunks)),
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
            Cell(f"{check['limit']} {_verdict(check['met'])}"),
        ]
        for check in checks
    ]
    return Table("Memory limits", [Cell("what"), Cell("value"), Cell("limit")], rows)


def extremes_table(extremes: Mapping[str, PeakMemory]) -> Table:
    """Lay out the extreme inputs."""
    header = [Cell(text) for text in ("input", "sources", "tokens", "seconds", "peak", "states")]
    rows = [
        [
            Cell(name),
            Cell(f"{peak.sources:,}"),
            Cell(f"{peak.tokens:,}"),
            Cell(f"{peak.seconds:.1f}"),
            Cell(_megabytes(peak.peak)),
            Cell(_megabytes(peak.states)),
        ]
        for name, peak in extremes.items()
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
        f"{machine['cores']} cores, {machine['ram_gb']} GB."
    )
    readouts = "; ".join(
        f"{passes}: {own['head_weights']}, {own['layers']} of {settings['layers']} layers"
        for passes, own in settings["readouts"].items()
    )
    yield f"Head weights: {readouts}."
    share = speed["core_share"]
    line = f"The unit had {share:.0%} of the processor time it could use."
    if share < _ENOUGH_OF_THE_CORES:
        line += " Other work ran meanwhile: these figures are not to be relied on."
    yield line
    if not all(peak["exact"] for peak in report.get("memory", {}).get("independent", [])):
        yield "This system can't reset its record of the peak: peaks are lower bounds."


def write_report(folder: Path, report: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Write speed.json and speed.md."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Speed and memory", f"    {report['command']}", *remarks(report)]
    parts += map(to_markdown, tables)
    text = json.dumps(report, indent=2) + "\n"
    (folder / "speed.json").write_text(text, encoding="utf-8")
    (folder / "speed.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _verdict(met: bool | None) -> str:
    return "met" if met else "not met"


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _megabytes(size: float) -> str:
    return f"{size / MB:,.1f}"
