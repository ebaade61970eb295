"""The cost benchmark's figures, held against their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cost_cases import (
    COLD,
    READY,
    READY_TOGETHER,
    REFERENCE,
    REFERENCES,
    REMOVAL,
)
from interleaved import Sample, Spread, by_round, ratios
from peak_memory import CallPeak
from report_files import MB

TIMES_FASTER = (
    (COLD, REMOVAL, 20),
    (READY, REMOVAL, 100),
    (COLD, REFERENCE, 2.5),
    (READY, REFERENCE, 12),
    (READY_TOGETHER, REFERENCE, 40),
)
"""Which case has to be how many times as fast as which other, at least."""

MEMORY_SHARE = 0.2
"""Most that our scoring may take of the reference's peak."""

COLLECTION = "collecting ablations"
COLLECTION_LIMIT_MB = 1000


@dataclass(frozen=True, slots=True)
class CostFigures:
    """A case's figures.

    Attributes:
        case: The case.
        than_removal: How many times as long the removals took, by round.
        than_reference: How many times as long the reference took that generates its answer; None
            where it wasn't run.
        seconds: Wall clock; each round's median.
    """

    case: str
    than_removal: Spread
    than_reference: Spread | None
    seconds: Spread


@dataclass(frozen=True, slots=True)
class Check:
    """A figure against its limit.

    Attributes:
        what: What was measured.
        value: The figure.
        limit: Its limit.
        at_least: Whether the limit is the least allowed; else it is the most.
    """

    what: str
    value: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def summarise(samples: Sequence[Sample]) -> list[CostFigures]:
    """Summarise the samples, the fastest case first."""
    cases = list(dict.fromkeys(sample.case for sample in samples))
    figures = [
        CostFigures(
            case,
            Spread.of(ratios(samples, REMOVAL, reference=case)),
            Spread.of(ratios(samples, REFERENCE, reference=case)) if REFERENCE in cases else None,
            Spread.of(list(by_round(samples, case).values())),
        )
        for case in cases
    ]
    return sorted(figures, key=lambda own: own.seconds.median)


def time_checks(figures: Sequence[CostFigures]) -> list[Check]:
    """Hold the times against their limits; those against the reference only where it was run."""
    by_case = {own.case: own for own in figures}
    checks = []
    for case, other, limit in TIMES_FASTER:
        own = by_case[case]
        times = own.than_removal if other == REMOVAL else own.than_reference
        if times is not None:
            what = f"time of {other} / time of {case}"
            checks.append(Check(what, round(times.median, 2), limit, at_least=True))
    return checks


def memory_checks(peaks: Mapping[str, CallPeak]) -> list[Check]:
    """Hold the peaks, by case, against their limits."""
    checks = [
        Check(
            f"peak of {COLD} / peak of {other}",
            round(peaks[COLD].peak / peaks[other].peak, 3),
            MEMORY_SHARE,
            at_least=False,
        )
        for other in REFERENCES
        if other in peaks
    ]
    collection = round(peaks[COLLECTION].peak / MB, 1)
    what = f"peak in MB of {COLLECTION}, 1 example"
    return [*checks, Check(what, collection, COLLECTION_LIMIT_MB, at_least=False)]


def check_record(check: Check) -> dict[str, Any]:
    """Return a check as JSON-ready values."""
    return {**asdict(check), "met": check.met}
