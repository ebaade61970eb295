"""What `at2-rag calibrate` shows of its figures."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from at2_rag.report.plots import Series, reliability_plot
from at2_rag.training.calibrating.multi_hop import MultiHopFigures
from at2_rag.training.calibrating.study import EVERY, CalibrationFigures
from at2_rag.training.calibrating.transfer import TARGET, Interval, TransferFigures


def figures_table(figures: Sequence[CalibrationFigures]) -> Table:
    """Return the figures on sources that weights and calibration were fitted without."""
    table = Table(title="left-out sources", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("source", no_wrap=True)
    for heading in (
        "chunks",
        "matter",
        "ECE",
        "best's",
        "skill",
        "gold's",
        "calls",
        "AUROC",
        "by length",
    ):
        table.add_column(heading, justify="right")
    for own in figures:
        numbers = (own.matter, own.error, own.error_of_best, own.skill, own.skill_of_gold)
        table.add_row(
            Text(own.source),
            f"{own.chunks:,}",
            *(f"{number:.3f}" for number in numbers),
            f"{own.calls:,}",
            f"{own.auroc:.3f}",
            f"{own.auroc_of_lengths:.3f}",
        )
    return table


def multi_hop_table(figures: Sequence[MultiHopFigures]) -> Table:
    """Return how often the best three chunks hold all gold ones, with and without a multi-hop."""
    title = "all gold in the best 3, weights fitted without the fold"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("source", no_wrap=True)
    for heading in ("calls", "without", "with multi-hop", "difference"):
        table.add_column(heading, justify="right")
    for own in figures:
        gain = own.with_it - own.without
        table.add_row(
            Text(own.source),
            f"{own.calls:,}",
            f"{own.without:.3f}",
            f"{own.with_it:.3f}",
            Text(f"{gain:+.3f} [{own.low:+.3f}, {own.high:+.3f}]"),
        )
    return table


def reliability_plot_of(figures: Sequence[CalibrationFigures]) -> str:
    """Draw how often what was foretold of left-out sources came true."""
    every = [own for own in figures if own.source == EVERY]
    series = [
        Series(f"{what}, {own.source}", [(*point, None, None) for point in points], emphasis=True)
        for own in every
        for what, points in (
            ("all chunks", own.reliability),
            ("best chunks", own.reliability_of_best),
            ("answerable", own.reliability_of_calls),
        )
    ]
    series += [
        Series(own.source, [(*point, None, None) for point in own.reliability])
        for own in figures
        if own.source != EVERY
    ]
    return reliability_plot(series, title="Reliability on left-out sources")


def transfer_table(figures: Sequence[TransferFigures]) -> Table:
    """Return what one max_missed keeps on sources that it was chosen without."""
    title = f"one max_missed for {TARGET:.0%} of the gold chunks, chosen on the other sources"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("source", no_wrap=True)
    for heading in ("", "calls", "max_missed", "gold kept", "words", "times the tuned"):
        table.add_column(heading, justify="right")
    for own in figures:
        table.add_row(
            Text(own.source),
            own.split,
            f"{own.calls:,}",
            f"{own.max_missed:.2f}",
            Text(_with_interval(own.kept_gold, own.kept_gold_interval)),
            f"{own.words:,.0f}",
            Text(_with_interval(own.words_ratio, own.words_ratio_interval)),
        )
    return table


def _with_interval(value: float, interval: Interval) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
