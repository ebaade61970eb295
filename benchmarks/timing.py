"""Interleaved timing: every case runs once in every round, in a new order.

A machine's speed drifts, so a case's time is divided by another's time *of the same round*.
Reported are the median of these ratios and their quartiles.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import gcd

import numpy as np

from at2_rag.progress import StepProgress

UNIT = "full forward pass (the unit)"

Case = Callable[[int], Mapping[str, float] | None]
"""Runs a case on the prompt of this index; may return the seconds of its stages."""


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One run of a case.

    Attributes:
        case: Name of the case.
        round: The round; all its runs are on one prompt.
        seconds: Wall-clock time.
        cpu_seconds: Processor time of the process, summed over its threads.
        stages: Seconds by stage; None where the case doesn't report them.
    """

    case: str
    round: int
    seconds: float
    cpu_seconds: float = 0.0
    stages: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of `n` numbers."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one number or more."""
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high, len(values))


def time_cases(
    cases: Mapping[str, Case],
    *,
    prompts: int,
    repeats: int,
    seed: int,
    slow: Collection[str] = (),
) -> list[TimedRun]:
    """Run every case on every prompt in `repeats` rounds, and show the progress on stderr.

    Args:
        cases: The cases by name. Each first runs once on every prompt, untimed.
        prompts: Number of prompts.
        repeats: Rounds on each prompt.
        seed: Seed of the order within the rounds.
        slow: Cases that run on the first prompt only before they are timed, and in one round of
            `slow_interval(prompts)`.
    """
    for name, case in cases.items():
        for prompt in range(1 if name in slow else prompts):
            case(prompt)
    interval = slow_interval(prompts)
    order = random.Random(seed)
    schedule = []
    for number in range(prompts * repeats):
        names = [name for name in cases if name not in slow or number % interval == 0]
        order.shuffle(names)
        schedule += [(number, name) for name in names]
    runs = []
    with StepProgress() as progress:
        progress("timing", 0, len(schedule))
        for number, name in schedule:
            cpu, start = time.process_time(), time.perf_counter()
            stages = cases[name](number % prompts)
            seconds = time.perf_counter() - start
            runs.append(TimedRun(name, number, seconds, time.process_time() - cpu, stages))
            progress("timing", len(runs), len(schedule))
    return runs


def slow_interval(prompts: int) -> int:
    """Return how many rounds apart slow cases run: at least 7, and so that every prompt is met."""
    return next(interval for interval in count(7) if gcd(interval, prompts) == 1)


def median_ms(runs: Sequence[TimedRun], case: str) -> float:
    """Return the median time of a case, in milliseconds."""
    return 1000 * statistics.median(run.seconds for run in runs if run.case == case)


def ratio(runs: Sequence[TimedRun], case: str, *, to: str) -> Spread:
    """Return a case's time divided by another's of the same round, over the rounds of both."""
    seconds = {run.round: run.seconds for run in runs if run.case == to}
    return Spread.of(
        [
            run.seconds / seconds[run.round]
            for run in runs
            if run.case == case and run.round in seconds
        ]
    )


def stage_medians(runs: Sequence[TimedRun], case: str) -> dict[str, float]:
    """Return the median seconds of each stage of a case that reports them."""
    stages = [run.stages for run in runs if run.case == case and run.stages]
    return {name: statistics.median(seconds[name] for seconds in stages) for name in stages[0]}
