"""Interleaved timing: every case in every round, in a new order, compared within the round.

A machine's speed drifts. Each case's time is therefore divided by the reference's time of the
same round, and the median of these ratios is reported. Where a case runs several times in a round,
its time of that round is their median.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[int], Mapping[str, float]]
"""Runs a case on the prompt of this number; returns seconds by stage, if it knows."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run.

    Attributes:
        case: The case's name.
        round: The round, which has every case, all on one prompt.
        seconds: Wall clock.
        cpu_seconds: Processor time of the process, all threads.
        stages: Seconds by stage, as the case reports them.
    """

    case: str
    round: int
    seconds: float
    cpu_seconds: float
    stages: Mapping[str, float]

    def part(self, stages: Sequence[str]) -> float:
        """Return the seconds of some stages; all seconds if none are named."""
        return sum(self.stages[name] for name in stages) if stages else self.seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of `n` numbers."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise numbers, at least one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


def time_cases(
    cases: Mapping[str, Case],
    *,
    prompts: int,
    repeats: int,
    seed: int,
    times: Mapping[str, int] | None = None,
    warm: Collection[str] = (),
    between: Mapping[str, int] | None = None,
) -> Iterator[Sample]:
    """Run every case on every prompt in `repeats` rounds and yield the samples as they come.

    Every case first runs once on every prompt, untimed.

    Args:
        cases: The cases by name.
        prompts: How many prompts there are.
        repeats: Rounds on each prompt.
        seed: Of the order within the rounds.
        times: How often a case runs in a round, at least once; once for those not named.
        warm: Cases that need no untimed runs.
        between: Cases that run in the first of every so many rounds; the others run in each.
    """
    for name, case in cases.items():
        for prompt in range(0 if name in warm else prompts):
            case(prompt)
    order = random.Random(seed)
    for number in range(prompts * repeats):
        due = [name for name in cases if number % (between or {}).get(name, 1) == 0]
        names = [name for name in due for _ in range((times or {}).get(name, 1))]
        order.shuffle(names)
        for name in names:
            cpu, start = time.process_time(), time.perf_counter()
            stages = cases[name](number % prompts)
            seconds = time.perf_counter() - start
            yield Sample(name, number, seconds, time.process_time() - cpu, dict(stages))


def ratios(
    samples: Sequence[Sample], case: str, *, reference: str, stages: Sequence[str] = ()
) -> list[float]:
    """Return a case's seconds (or those of some of its stages) by the reference's, by round."""
    units = by_round(samples, reference)
    return [seconds / units[number] for number, seconds in by_round(samples, case, stages).items()]


def by_round(samples: Sequence[Sample], case: str, stages: Sequence[str] = ()) -> dict[int, float]:
    """Return a case's median seconds (or those of some of its stages) in each round."""
    found: dict[int, list[float]] = {}
    for sample in samples:
        if sample.case == case:
            found.setdefault(sample.round, []).append(sample.part(stages))
    return {number: statistics.median(seconds) for number, seconds in found.items()}


def core_share(samples: Sequence[Sample], case: str, *, threads: int) -> float:
    """Return how much of the cores it asked for a case got: 1 on an idle machine."""
    own = [sample for sample in samples if sample.case == case]
    return statistics.median(s.cpu_seconds / (s.seconds * threads) for s in own)
