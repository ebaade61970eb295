"""The depth curve as tables and as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from depth_quality import MARGIN, Design, DesignQuality
from depth_times import DesignTime

from at2_rag.report.plots import Series, interval_plot
from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.tables import Cell, Table

PLOT = "Quality by layers in use"


def cheapest_not_inferior(
    rows: Sequence[DesignQuality], times: Mapping[Design, DesignTime]
) -> Design:
    """Return the design of the lowest cold ratio among those that aren't inferior to the best.

    Without times the one with the fewest layers, then passes.
    """

    def cost(row: DesignQuality) -> tuple[float, int, int]:
        time = times.get(row.design)
        ratio = 0.0 if time is None else time.cold.median
        return ratio, row.design.depth, len(row.design.passes)

    return min((row for row in rows if row.is_not_inferior), key=cost).design


def depth_table(rows: Sequence[DesignQuality], times: Mapping[Design, DesignTime]) -> Table:
    """Lay out quality and cost of every design."""
    header = (
        *("layers, passes", "out of fold", "less the best", "not inferior", "dev"),
        *("dev, gold first", "cold", "warm", "cold ms", "warm ms", "KB a chunk"),
    )
    return Table(
        "Depth against quality (macro nDCG@10) and cost (ratios to the unit)",
        [Cell(text) for text in header],
        [
            [
                Cell(row.design.name),
                Cell(f"{row.ndcg.mean:.4f}", _interval(row.ndcg)),
                Cell(f"{row.less_best.mean:+.4f}", _interval(row.less_best)),
                Cell("yes" if row.is_not_inferior else "no"),
                *(
                    Cell("" if row.dev is None else f"{value:.4f}")
                    for value in (
                        (0.0, 0.0) if row.dev is None else (row.dev.ndcg, row.dev.gold_first)
                    )
                ),
                *_cost(times.get(row.design)),
            ]
            for row in rows
        ],
    )


def source_table(rows: Sequence[DesignQuality]) -> Table:
    """Lay out nDCG@10 of every design by source, out of fold and on dev."""
    sources = sorted(rows[0].by_source)
    return Table(
        "nDCG@10 by source, out of fold / dev",
        [Cell("layers, passes"), *map(Cell, sources)],
        [
            [
                Cell(row.design.name),
                *(
                    Cell(
                        f"{row.by_source[source]:.3f}"
                        + (
                            ""
                            if row.dev is None or source not in row.dev.ndcg_by_source
                            else f" / {row.dev.ndcg_by_source[source]:.3f}"
                        )
                    )
                    for source in sources
                ),
            ]
            for row in rows
        ],
    )


def depth_plot(rows: Sequence[DesignQuality]) -> str:
    """Return an SVG of quality by layers, a line for each choice of passes, and on dev."""
    series = []
    for passes in dict.fromkeys(row.design.passes for row in rows):
        own = sorted(
            (row for row in rows if row.design.passes == passes), key=lambda row: row.design.depth
        )
        name = " + ".join(passes)
        most = len(passes) == max(len(row.design.passes) for row in rows)
        points = [(row.design.depth, row.ndcg.mean, row.ndcg.low, row.ndcg.high) for row in own]
        series.append(Series(f"{name}, out of fold", points, emphasis=most))
        dev = [(row.design.depth, row.dev.ndcg, None, None) for row in own if row.dev is not None]
        series += [Series(f"{name}, dev", dev)] if dev else []
    least = min(y if low is None else low for own in series for _, y, low, _ in own.points)
    return interval_plot(
        series,
        title=PLOT,
        x_label="layers in use",
        y_label="macro nDCG@10",
        lowest=math.floor(20 * least) / 20,
    )


def remarks(chosen: Design, best: Design, *, judged: int, folds: int) -> list[str]:
    """Return what the tables say in words."""
    return [
        f"Best out of fold: {best.name}. Cheapest that isn't inferior to it (lower limit of the "
        f"paired 95 % interval of the difference above -{MARGIN}): {chosen.name}.",
        f"Out of fold: {folds} folds grouped by gold passage, {judged:,} examples; intervals by "
        "the bootstrap over groups, each source drawn from by itself. Dev: fitted on all examples.",
    ]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{estimate.low:.4f}, {estimate.high:.4f}]"


def _cost(time: DesignTime | None) -> list[Cell]:
    if time is None:
        return [Cell("") for _ in range(5)]
    return [
        Cell(f"{time.cold.median:.3f}"),
        Cell(f"{time.warm.median:.3f}"),
        Cell(f"{1000 * time.cold_seconds:.0f}"),
        Cell(f"{1000 * time.warm_seconds:.1f}"),
        Cell(f"{time.bytes_a_chunk / 1000:.0f}"),
    ]
