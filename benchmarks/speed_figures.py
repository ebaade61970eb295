"""The speed benchmark's figures, held against their limits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cost_cases import REFERENCE, REMOVAL
from floor import floor_name
from interleaved import Sample, Spread, ratios
from peak_memory import PeakMemory
from report_files import MB
from speed_cases import COLD_CASES, READOUTS_OF_CASES, ROWS, UNIT, Row
from speed_prompts import CHUNKS

PEAK_LIMIT_MB = 250
MANY_CHUNKS = 500
MANY_LIMIT_MB = 400
BEYOND_STATES_LIMIT_MB = 250
GROWTH_LIMIT = 1.0


@dataclass(frozen=True, slots=True)
class SpeedFigures:
    """A row of the speed table with its figures.

    Attributes:
        row: The row.
        ratio: To the unit, by round.
        seconds: Wall clock.
    """

    row: Row
    ratio: Spread
    seconds: Spread

    @property
    def met(self) -> bool | None:
        """Whether the median ratio is within the row's limit; None without one."""
        return None if self.row.limit is None else self.ratio.median <= self.row.limit


def summarise(samples: Sequence[Sample]) -> list[SpeedFigures]:
    """Summarise the samples as the table's rows; peers' come last."""
    names = dict.fromkeys(sample.case for sample in samples)
    known = {row.case for row in ROWS} | set(map(floor_name, COLD_CASES)) | {REMOVAL, REFERENCE}
    figures = []
    for row in (*ROWS, *(Row(name, name) for name in names if name not in known)):
        seconds = [sample.part(row.stages) for sample in samples if sample.case == row.case]
        ratio = Spread.of(ratios(samples, row.case, reference=UNIT, stages=row.stages))
        figures.append(SpeedFigures(row, ratio, Spread.of(seconds)))
    return figures


def stage_medians(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Return the median seconds of each stage of each case."""
    medians = {}
    for case in READOUTS_OF_CASES:
        stages = [sample.stages for sample in samples if sample.case == case]
        medians[case] = {name: statistics.median(s[name] for s in stages) for name in stages[0]}
    return medians


def growth(peaks: Sequence[PeakMemory]) -> float | None:
    """Return the exponent of the peak in the number of chunks.

    The slope of a straight line through the logarithms: 1 is linear. None for fewer than two
    numbers of chunks.
    """
    points = [(own.chunks, own.peak) for own in peaks if own.peak > 0]
    if len(points) < 2:
        return None
    sizes, bytes_taken = zip(*points, strict=True)
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(taken) for taken in bytes_taken]
    ).slope


def memory_checks(peaks: Mapping[str, Sequence[PeakMemory]]) -> list[dict[str, Any]]:
    """Hold the peaks, by reading, against their limits: what, value, limit, met."""
    checks: list[dict[str, Any]] = []
    for reading in ("joint", "independent"):
        for peak in peaks[reading]:
            if peak.chunks == CHUNKS:
                what = f"peak in MB at {CHUNKS} chunks, {reading}"
                checks.append(_check(what, round(peak.peak / MB, 1), PEAK_LIMIT_MB))
    for peak in peaks["independent"]:
        if peak.chunks == MANY_CHUNKS:
            what = f"peak in MB at {MANY_CHUNKS} chunks, independent"
            checks.append(_check(what, round(peak.peak / MB, 1), MANY_LIMIT_MB))
    for peak in peaks["kept"]:
        if peak.chunks == MANY_CHUNKS:
            what = f"peak in MB beyond the states at {MANY_CHUNKS} chunks, states kept"
            beyond = round((peak.peak - peak.states) / MB, 1)
            checks.append(_check(what, beyond, BEYOND_STATES_LIMIT_MB))
    exponent = growth(peaks["independent"])
    if exponent is not None:
        sizes = [peak.chunks for peak in peaks["independent"]]
        what = f"growth of the peak, independent, {min(sizes)} to {max(sizes)} chunks (exponent)"
        checks.append(_check(what, round(exponent, 2), GROWTH_LIMIT))
    return checks


def speed_record(
    figures: Sequence[SpeedFigures], stages: Mapping[str, Mapping[str, float]], share: float
) -> dict[str, Any]:
    """Return the speed figures as JSON-ready values."""
    rows = [
        {
            **asdict(own.row),
            "title": own.row.title.strip(),
            "ratio": asdict(own.ratio),
            "seconds": asdict(own.seconds),
            "met": own.met,
        }
        for own in figures
    ]
    return {"rows": rows, "stages": stages, "core_share": share}


def _check(what: str, value: float, limit: float) -> dict[str, Any]:
    return {"what": what, "value": value, "limit": limit, "met": value <= limit}
