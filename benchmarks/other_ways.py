"""How many times as long other ways take as our own calls, in the same rounds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from math import gcd
from typing import Any

from cost_cases import (
    ANSWER_TOKENS,
    BATCH_SIZES,
    MASKING,
    REFERENCE,
    REMOVAL,
    CostCases,
    make_questions,
)
from interleaved import Case, Sample, Spread, ratios
from measured_model import MeasuredModel
from peers import MINILM_COLD
from reference_at2 import ReferenceAT2
from report_files import verdict
from speed_prompts import Prompt

from at2_rag_evals.tables import Cell, Table

_ROUNDS_BETWEEN = 7
"""These cases run in one of so many rounds: they take a hundred times as long as the others."""

TIMES_FASTER: Mapping[str, Mapping[str, float]] = {
    REFERENCE: {
        "cold, together + apart": 4,
        "warm, together + apart": 15,
        "cold, fast": 6,
        "warm, fast": 60,
    },
    REMOVAL: {
        "cold, together + apart": 40,
        "warm, together + apart": 150,
        "cold, fast": 60,
        "warm, fast": 600,
    },
    MINILM_COLD: {"cold, fast": 0.5},
}
"""How many times as long each has to take as our own calls, at least; an embedding half as long."""


@dataclass(frozen=True, slots=True)
class TimesFaster:
    """How many times as long another way took as one of our cases.

    Attributes:
        other: The other way.
        case: Our case.
        ratio: How many times as long, by round.
        limit: What its median has to be at least.
        met: Whether it is.
    """

    other: str
    case: str
    ratio: Spread
    limit: float
    met: bool


def ablation_cases(
    measured: MeasuredModel,
    prompts: Sequence[Prompt],
    *,
    removals: bool,
    reference: ReferenceAT2 | None,
    seed: int,
) -> dict[str, Case]:
    """Return the cases asked for, each run once already on the first prompt.

    Args:
        measured: The model.
        prompts: The prompts; the reference has to read each.
        removals: Whether to have 32 ablations by removal, in the fastest of `BATCH_SIZES`.
        reference: The reference AT2; None for without it.
        seed: Of the masks.
    """
    found: dict[str, Case] = {}
    if not removals and reference is None:
        return found
    cases = CostCases(measured, make_questions(measured, prompts, seed=seed), reference)
    if removals:
        cases.case(MASKING, batch=1)(0)  # so that the first size doesn't pay for the start
        seconds = {}
        for size in BATCH_SIZES:
            start = time.perf_counter()
            cases.removal(size)(0)
            seconds[size] = time.perf_counter() - start
        found[REMOVAL] = cases.removal(min(seconds, key=seconds.__getitem__))
    if reference is not None:
        found[REFERENCE] = cases.case(REFERENCE, batch=1)
        found[REFERENCE](0)
    return found


def rounds_between(prompts: int) -> int:
    """Return in one of how many rounds the slow cases run, so that they come by every prompt."""
    return next(own for own in count(_ROUNDS_BETWEEN) if gcd(own, prompts) == 1)


def summarise_ablations(samples: Sequence[Sample]) -> list[TimesFaster]:
    """Summarise how many times as long the cases took that were run."""
    run = {sample.case for sample in samples}
    rows = []
    for other, limits in TIMES_FASTER.items():
        if other not in run:
            continue
        for case, limit in limits.items():
            ratio = Spread.of(ratios(samples, other, reference=case))
            rows.append(TimesFaster(other, case, ratio, limit, ratio.median >= limit))
    return rows


def ablations_record(rows: Sequence[TimesFaster]) -> dict[str, Any]:
    """Return the figures as JSON-ready values."""
    return {"answer_tokens": ANSWER_TOKENS, "rows": [asdict(row) for row in rows]}


def ablations_table(rows: Sequence[TimesFaster]) -> Table:
    """Lay out how many times as long they took."""
    header = [Cell(text) for text in ("beside", "our case", "times as long", "quartiles", "limit")]
    return Table(
        "Other ways, by our time",
        header,
        [
            [
                Cell(row.other),
                Cell(row.case),
                Cell(f"{row.ratio.median:.1f}"),
                Cell(f"{row.ratio.low:.1f}-{row.ratio.high:.1f}"),
                Cell(f"{row.limit:g} {verdict(row.met)}"),
            ]
            for row in rows
        ],
    )
