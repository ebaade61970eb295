"""From judged cells to figures: means with intervals, differences, tokens and seconds."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.data.bootstrap import RESAMPLES, Estimate
from at2_rag.data.examples import Example
from at2_rag_evals.qa.equal_tokens import Mixture, matched
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.judging import METRIC_TITLES, PRIMARY
from at2_rag_evals.qa.run import CellName, CellResult
from at2_rag_evals.summary import MACRO, Figures, Strata, differences, estimates, with_macro

BASELINE = "none"
FAILED = "no answer from "
"""What the reason for leaving an item out begins with; the label of the cell follows."""

POSITIONS = ("first", "first half", "second half", "last", "several gold chunks", "no gold chunk")
DISTRACTORS: Mapping[str, int] = MappingProxyType(
    {"0": 0, "1-4": 4, "5-9": 9, "10-19": 19, "20-49": 49, ">49": sys.maxsize}
)


@dataclass(frozen=True, slots=True)
class CellTotals:
    """What a cell took: means over its answered items; None for what isn't known."""

    context_tokens: float
    prompt_tokens: float
    new_tokens: float
    prune_seconds: float
    prefill_seconds: float | None
    decode_seconds: float | None
    answer_seconds: float
    asked_again: int  # answers that took more than one attempt
    empty: int  # answers without a word
    failed: int  # items without an answer
    cost: float | None  # of all prompts and answers
    prune_peak: int | None  # most bytes that pruning took
    answer_peak: int | None


@dataclass(frozen=True, slots=True)
class GeneratorSummary:
    """All figures of one generator; cells are in the order they were run.

    Attributes:
        by_source: Metric -> source or "macro" -> cell -> estimate.
        differences: Cell of ours or `none` -> source or "macro" -> other cell -> estimate of its
            accuracy minus the other's.
        equal_tokens: Cell of ours -> source or "macro" -> other pruner -> estimate of our accuracy
            minus the other's at the tokens of our cell; see `equal_tokens.py`.
        mixtures: Cell of ours -> other pruner -> source -> which of its cells that is.
        by_position: Position of the gold chunk -> cell -> estimate of accuracy, sources pooled.
        by_distractors: Number of distractors -> cell -> estimate of accuracy, sources pooled.
        context_tokens: Source or "macro" -> cell -> mean tokens of the kept chunks; macro over the
            sources that accuracy is defined for.
        totals: Cell -> what it took; None where no item was answered.
        unanswered: Reason -> number of items left out of every cell's metrics of answers.
    """

    name: str
    cells: tuple[CellName, ...]
    by_source: Figures
    differences: Figures
    equal_tokens: Figures
    mixtures: Mapping[str, Mapping[str, Mapping[str, Mixture]]]
    by_position: Mapping[str, Mapping[str, Estimate]]
    by_distractors: Mapping[str, Mapping[str, Estimate]]
    context_tokens: Mapping[str, Mapping[str, float]]
    totals: Mapping[str, CellTotals | None]
    unanswered: Mapping[str, int]

    def macro(self, metric: str) -> Mapping[str, Estimate]:
        """Return cell -> a metric's mean over sources; empty where the metric isn't defined."""
        return self.by_source[metric].get(MACRO, {})

    def minus_baseline(self, group: str = MACRO) -> dict[str, Estimate]:
        """Return cell -> its accuracy minus that of `none`; empty where that wasn't run."""
        against = self.differences.get(BASELINE, {}).get(group, {})
        return {label: estimate.negated for label, estimate in against.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        cells = [{"label": cell.label, **asdict(cell)} for cell in self.cells]
        return {**asdict(self), "cells": cells}


def summarise(
    results: Sequence[CellResult],
    *,
    items: Sequence[Example],
    clusters: Sequence[int],
    baselines: frozenset[str],
    seed: int,
    prices: tuple[float, float] | None = None,
) -> GeneratorSummary:
    """Work out the figures of one generator's cells.

    Pruners of the names `baselines` are compared with, the others compared. `prices` are what a
    million tokens of prompts and of answers cost.
    """
    name, cells = results[0].generator, [result.cell for result in results]
    labels = [cell.label for cell in cells]
    strata = Strata(clusters, name, seed, RESAMPLES)
    sources = [item.source for item in items]
    samples = {
        metric: with_macro(strata.sample(_values(results, metric), sources, metric=metric))
        for metric in METRIC_TITLES
    }
    accuracy = _values(results, PRIMARY)
    answered = np.isnan(accuracy).sum(axis=1) == 0
    tokens = np.array(
        [[one.context_tokens for one in result.judged] for result in results], dtype=np.float64
    ).T  # [N, K]
    mixtures = _mixtures(results, _means_by_source(tokens, labels, sources, answered), baselines)
    means = _means_by_source(tokens, labels, sources)
    counted = [means[source] for source in means if source in samples[PRIMARY]]
    macro = {label: _mean(one[label] for one in counted or means.values()) for label in labels}

    def pooled(group: Callable[[Example], str]) -> dict[str, dict[str, Estimate]]:
        groups = [group(item) for item in items]
        return estimates(strata.sample(accuracy, groups, metric=PRIMARY), labels)

    def compared(cell: CellName) -> bool:
        return len(cells) > 1 and (cell.pruner == BASELINE or cell.pruner not in baselines)

    return GeneratorSummary(
        name=name,
        cells=tuple(cells),
        by_source={metric: estimates(groups, labels) for metric, groups in samples.items()},
        differences={
            cell.label: differences(samples[PRIMARY], labels, ours=cell.label)
            for cell in cells
            if compared(cell)
        },
        equal_tokens=_equal_tokens(mixtures, accuracy, answered, labels, sources, strata),
        mixtures=mixtures,
        by_position=pooled(position_group),
        by_distractors=pooled(distractor_group),
        context_tokens={**means, MACRO: macro},
        totals={result.cell.label: _totals(result, prices) for result in results},
        unanswered=_unanswered(results),
    )


def position_group(item: Example) -> str:
    """Return the position of an item's gold chunk, one of `POSITIONS`.

    The chunk in the very middle counts as in the first half; an only chunk is first.
    """
    gold = sum(item.labels)
    if gold != 1:
        return POSITIONS[4] if gold else POSITIONS[5]
    index, last = item.labels.index(True), len(item.labels) - 1
    if index in (0, last):
        return POSITIONS[0] if index == 0 else POSITIONS[3]
    return POSITIONS[1] if 2 * index <= last else POSITIONS[2]


def distractor_group(item: Example) -> str:
    """Return the range, one of `DISTRACTORS`, of an item's number of chunks that aren't gold."""
    number = len(item.labels) - sum(item.labels)
    return next(name for name, most in DISTRACTORS.items() if number <= most)


def _mixtures(
    results: Sequence[CellResult],
    tokens: Mapping[str, Mapping[str, float]],
    baselines: frozenset[str],
) -> dict[str, dict[str, dict[str, Mixture]]]:
    """Return for each cell of ours what other pruners' cells have its tokens."""
    cells = [result.cell for result in results]
    changing = {
        result.cell.pruner
        for result in results
        if any(judged.pruned.texts is not None for judged in result.judged)
    }
    return {
        ours.label: matched(ours, cells, tokens, changing=changing)
        for ours in cells
        if tokens and ours.budget is not None and ours.pruner not in baselines
    }


def _equal_tokens(
    mixtures: Mapping[str, Mapping[str, Mapping[str, Mixture]]],
    accuracy: npt.NDArray[np.float64],
    answered: npt.NDArray[np.bool_],
    labels: Sequence[str],
    sources: Sequence[str],
    strata: Strata,
) -> Figures:
    """Return the differences at equal tokens; `accuracy` is [N, K], `answered` [N]."""
    figures: dict[str, dict[str, dict[str, Estimate]]] = {}
    for ours, others in mixtures.items():
        columns = np.full((len(accuracy), 1 + len(others)), np.nan)  # ours, then each other pruner
        columns[answered, 0] = accuracy[answered, labels.index(ours)]
        for column, by_source in enumerate(others.values(), start=1):
            for source, mixture in by_source.items():
                rows = answered & (np.array(sources) == source)
                columns[rows, column] = mixture.values(accuracy[rows], labels)
        samples = with_macro(strata.sample(columns, sources, metric=PRIMARY))
        if samples and others:
            figures[ours] = differences(samples, [ours, *others], ours=ours)
    return figures


def _totals(result: CellResult, prices: tuple[float, float] | None) -> CellTotals | None:
    answers = [one.result for one in result.judged if isinstance(one.result, Answer)]
    answered = [one for one in result.judged if isinstance(one.result, Answer)]
    if not answers:
        return None
    cost = None
    if prices is not None:
        prompts = sum(answer.prompt_tokens for answer in answers)
        cost = (prompts * prices[0] + sum(one.new_tokens for one in answers) * prices[1]) / 1e6
    return CellTotals(
        context_tokens=_mean(one.context_tokens for one in answered),
        prompt_tokens=_mean(answer.prompt_tokens for answer in answers),
        new_tokens=_mean(answer.new_tokens for answer in answers),
        prune_seconds=_mean(one.pruned.seconds for one in answered),
        prefill_seconds=_known_mean([answer.prefill_seconds for answer in answers]),
        decode_seconds=_known_mean([answer.decode_seconds for answer in answers]),
        answer_seconds=_mean(answer.seconds for answer in answers),
        asked_again=sum(answer.attempts > 1 for answer in answers),
        empty=sum(not answer.text for answer in answers),
        failed=len(result.judged) - len(answers),
        cost=cost,
        prune_peak=result.prune_peak,
        answer_peak=result.answer_peak,
    )


def _values(results: Sequence[CellResult], metric: str) -> npt.NDArray[np.float64]:
    """Return a metric's values, [N, K]; NaN where it isn't defined or there is no answer."""
    columns = [[one.metrics[metric] for one in result.judged] for result in results]
    return np.array(columns, dtype=np.float64).T  # None becomes NaN


def _means_by_source(
    values: npt.NDArray[np.float64],
    labels: Sequence[str],
    sources: Sequence[str],
    rows: npt.NDArray[np.bool_] | bool = True,
) -> dict[str, dict[str, float]]:
    """Return source -> cell -> mean of its column of `values`, [N, K], over these rows."""
    means = {}
    for source in dict.fromkeys(sources):
        chosen = (np.array(sources) == source) & rows
        if chosen.any():
            means[source] = dict(zip(labels, values[chosen].mean(axis=0).tolist(), strict=True))
    return means


def _unanswered(results: Sequence[CellResult]) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for cells in zip(*(result.judged for result in results), strict=True):
        for result, judged in zip(results, cells, strict=True):
            if isinstance(judged.result, Failure):
                reasons[f"{FAILED}{result.cell.label}"] += 1
                break
    return dict(reasons)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None
