"""From judged cells to figures: means with intervals, differences, tokens and seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example
from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.qa.equal_tokens import Mixture, matched
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.groups import distractor_group, position_group
from at2_rag_evals.qa.judging import METRIC_TITLES, PRIMARY
from at2_rag_evals.qa.run import CellName, CellResult
from at2_rag_evals.summary import MACRO, Figures, Strata, differences, estimates, with_macro

BASELINE = "none"


@dataclass(frozen=True, slots=True)
class CellTotals:
    """What a cell took, means over its answered items.

    Attributes:
        context_tokens: Tokens of the kept chunks.
        prompt_tokens: Tokens of the whole prompt.
        new_tokens: Tokens of the answer.
        prune_seconds: Time of pruning.
        prefill_seconds: Time until the first token; None where it isn't known apart.
        decode_seconds: Time after it; None where it isn't known apart.
        answer_seconds: Time of the whole answer.
        asked_again: Number of answers that took more than one attempt.
        empty: Number of answers without a word.
        failed: Number of items without an answer.
        cost: What all prompts and answers cost; None without prices.
        prune_peak: Most bytes that pruning took; None where it isn't known.
        answer_peak: Most bytes that answering took; None where it isn't known.
    """

    context_tokens: float
    prompt_tokens: float
    new_tokens: float
    prune_seconds: float
    prefill_seconds: float | None
    decode_seconds: float | None
    answer_seconds: float
    asked_again: int
    empty: int
    failed: int
    cost: float | None
    prune_peak: int | None
    answer_peak: int | None


@dataclass(frozen=True, slots=True)
class GeneratorSummary:
    """All figures of one generator.

    Attributes:
        name: The generator.
        cells: Its cells, in the order they were run.
        by_source: Metric -> source or "macro" -> cell -> estimate.
        differences: Compared cell -> source or "macro" -> other cell -> estimate of the compared
            cell's accuracy minus the other's; see `compared_cells`.
        equal_tokens: Cell of ours -> source or "macro" -> other pruner -> estimate of our accuracy
            minus the other's at the tokens of our cell; see `equal_tokens.py`.
        mixtures: Cell of ours -> other pruner -> source -> which of its cells that is.
        by_position: Position of the gold chunk -> cell -> estimate of accuracy, sources pooled.
        by_distractors: Number of distractors -> cell -> estimate of accuracy, sources pooled.
        context_tokens: Source or "macro" -> cell -> mean tokens of the kept chunks; macro over the
            sources that accuracy is defined for.
        totals: Cell -> what it took; None where no item was answered.
        unanswered: Reason -> number of items that some cell has no answer to, left out of every
            cell's metrics of answers.
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


@dataclass(frozen=True, slots=True)
class Summariser:
    """Works out a generator's figures.

    Attributes:
        items: The items.
        clusters: Each item's cluster.
        baselines: Names of pruners that are compared with and not compared themselves.
        seed: Seed of the bootstrap.
        resamples: Number of draws.
        prices: What a million tokens of prompts and of answers cost, in any currency; None where
            it isn't known.
    """

    items: Sequence[Example]
    clusters: Sequence[int]
    baselines: frozenset[str]
    seed: int
    resamples: int
    prices: tuple[float, float] | None = None

    def summarise(self, results: Sequence[CellResult]) -> GeneratorSummary:
        """Work out the figures of one generator's cells."""
        name, labels = results[0].generator, [result.cell.label for result in results]
        cells = [result.cell for result in results]
        strata = Strata(self.clusters, name, self.seed, self.resamples)
        sources = [item.source for item in self.items]
        samples = {
            metric: with_macro(strata.sample(_values(results, metric), sources, metric=metric))
            for metric in METRIC_TITLES
        }
        values = _values(results, PRIMARY)
        tokens = _context_tokens(results)
        answered = np.flatnonzero(~np.isnan(values).any(axis=1))
        mixtures = self._mixtures(results, tokens[answered], [sources[row] for row in answered])

        def pooled(group: Callable[[Example], str]) -> dict[str, dict[str, Estimate]]:
            groups = [group(item) for item in self.items]
            return estimates(strata.sample(values, groups, metric=PRIMARY), labels)

        return GeneratorSummary(
            name=name,
            cells=tuple(cells),
            by_source={
                metric: estimates(by_source, labels) for metric, by_source in samples.items()
            },
            differences={
                label: differences(samples[PRIMARY], labels, ours=label)
                for label in compared_cells(cells, self.baselines)
            },
            equal_tokens=_equal_tokens(mixtures, values, labels, sources, strata),
            mixtures=mixtures,
            by_position=pooled(position_group),
            by_distractors=pooled(distractor_group),
            context_tokens=_mean_tokens(tokens, labels, sources, in_macro=samples[PRIMARY]),
            totals={result.cell.label: self._totals(result) for result in results},
            unanswered=_unanswered(results),
        )

    def _mixtures(
        self,
        results: Sequence[CellResult],
        tokens: npt.NDArray[np.float64],
        sources: Sequence[str],
    ) -> dict[str, dict[str, dict[str, Mixture]]]:
        """Return for each cell of ours what other pruners' cells have its tokens.

        Args:
            results: The cells.
            tokens: Context tokens of the items that all cells answered, [N, K].
            sources: Those items' sources, [N].
        """
        cells = [result.cell for result in results]
        means = _means_by_source(tokens, [cell.label for cell in cells], sources)
        changing = {
            result.cell.pruner
            for result in results
            if any(judged.pruned.texts is not None for judged in result.judged)
        }
        return {
            ours.label: matched(ours, cells, means, changing=changing)
            for ours in cells
            if means and ours.budget is not None and ours.pruner not in self.baselines
        }

    def _totals(self, result: CellResult) -> CellTotals | None:
        judged = [one for one in result.judged if isinstance(one.result, Answer)]
        answers = [one.result for one in judged if isinstance(one.result, Answer)]
        if not answers:
            return None
        cost = None
        if self.prices is not None:
            spent = [
                sum(answer.prompt_tokens for answer in answers),
                sum(answer.new_tokens for answer in answers),
            ]
            cost = (spent[0] * self.prices[0] + spent[1] * self.prices[1]) / 1e6
        return CellTotals(
            context_tokens=_mean(one.context_tokens for one in judged),
            prompt_tokens=_mean(answer.prompt_tokens for answer in answers),
            new_tokens=_mean(answer.new_tokens for answer in answers),
            prune_seconds=_mean(one.pruned.seconds for one in judged),
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


def compared_cells(cells: Sequence[CellName], baselines: frozenset[str]) -> list[str]:
    """Return the labels of the cells that are compared with all others: `none`, and what is ours.

    Args:
        cells: All cells of a generator.
        baselines: Names of pruners that aren't ours.
    """
    return [
        cell.label
        for cell in cells
        if len(cells) > 1 and (cell.pruner == BASELINE or cell.pruner not in baselines)
    ]


def _equal_tokens(
    mixtures: Mapping[str, Mapping[str, Mapping[str, Mixture]]],
    values: npt.NDArray[np.float64],
    labels: Sequence[str],
    sources: Sequence[str],
    strata: Strata,
) -> Figures:
    """Return the differences at equal tokens; `values` are accuracies, [N, K]."""
    answered = ~np.isnan(values).any(axis=1)
    figures: dict[str, dict[str, dict[str, Estimate]]] = {}
    for ours, others in mixtures.items():
        columns = np.full((len(values), 1 + len(others)), np.nan)  # ours, then each other pruner
        columns[answered, 0] = values[answered, labels.index(ours)]
        for column, by_source in enumerate(others.values(), start=1):
            for source, mixture in by_source.items():
                rows = answered & (np.array(sources) == source)
                columns[rows, column] = mixture.values(values[rows], labels)
        samples = with_macro(strata.sample(columns, sources, metric=PRIMARY))
        if samples and others:
            figures[ours] = differences(samples, [ours, *others], ours=ours)
    return figures


def _values(results: Sequence[CellResult], metric: str) -> npt.NDArray[np.float64]:
    """Return a metric's values, [N, K]; NaN where it isn't defined or there is no answer."""
    columns = [[one.metrics[metric] for one in result.judged] for result in results]
    return np.array(columns, dtype=np.float64).T  # None becomes NaN


def _context_tokens(results: Sequence[CellResult]) -> npt.NDArray[np.float64]:
    """Return the tokens of the kept chunks, [N, K]."""
    columns = [[one.context_tokens for one in result.judged] for result in results]
    return np.array(columns, dtype=np.float64).T


def _mean_tokens(
    tokens: npt.NDArray[np.float64],
    labels: Sequence[str],
    sources: Sequence[str],
    in_macro: Collection[str],
) -> dict[str, dict[str, float]]:
    """Return mean tokens by source; macro over the sources that have accuracy, or else over all."""
    means = _means_by_source(tokens, labels, sources)
    counted = [means[source] for source in means if source in in_macro] or list(means.values())
    macro = {label: _mean(one[label] for one in counted) for label in labels}
    return {**means, MACRO: macro}


def _means_by_source(
    values: npt.NDArray[np.float64], labels: Sequence[str], sources: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return source -> cell -> mean of its column of `values`, [N, K]."""
    return {
        source: {
            label: _mean(values[np.array(sources) == source, column])
            for column, label in enumerate(labels)
        }
        for source in dict.fromkeys(sources)
    }


def _unanswered(results: Sequence[CellResult]) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for cells in zip(*(result.judged for result in results), strict=True):
        failed = [
            result.cell.label
            for result, judged in zip(results, cells, strict=True)
            if isinstance(judged.result, Failure)
        ]
        if failed:
            reasons[f"no answer from {failed[0]}"] += 1
    return dict(reasons)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None
