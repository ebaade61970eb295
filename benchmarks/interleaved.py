"""Interleaved timing: every case once a round, in a new order, compared within the round.

A machine's speed drifts. Each case's time is therefore divided by the reference's time of the
same round, and the median of these ratios is reported.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[int], Mapping[str, float]]
"""Runs a case on the prompt of this number; returns seconds by stage, if it knows."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run.

    Attributes:
        case: The case's name.
        round: The round, which has every case once, all on one prompt.
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
    cases: Mapping[str, Case], *, prompts: int, repeats: int, seed: int
) -> Iterator[Sample]:
    """Run every case on every prompt `repeats` times and yield the samples as they come.

    Every case first runs once on every prompt, untimed.

    Args:
        cases: The cases by name.
        prompts: How many prompts there are.
        repeats: Rounds on each prompt.
        seed: Of the order within the rounds.
    """
    for case in cases.values():
        for prompt in range(prompts):
            case(prompt)
    order = random.Random(seed)
    for number in range(prompts * repeats):
        names = list(cases)
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
    units = {sample.round: sample.seconds for sample in samples if sample.case == reference}
    own = [sample for sample in samples if sample.case == case]
    return [sample.part(stages) / units[sample.round] for sample in own]
