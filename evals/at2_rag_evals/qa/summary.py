"""From judged cells to figures: means with intervals, differences, tokens and seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example
from at2_rag_evals.bootstrap import Estimate, Sample, macro_sample
from at2_rag_evals.qa.equal_tokens import Mixture, matched
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.groups import distractor_group, position_group
from at2_rag_evals.qa.judging import METRIC_TITLES, PRIMARY
from at2_rag_evals.qa.run import CellName, CellResult
from at2_rag_evals.summary import MACRO, Figures, Strata, differences, estimates

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
        asked_again: Answers that took more than one attempt.
        empty: Answers without a word.
        failed: Items without an answer.
        cost: What all prompts and answers cost at the prices given; None without prices.
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
class Prices:
    """What a million tokens cost, in any currency.

    Attributes:
        prompt: A million tokens of prompts.
        answer: A million tokens of answers.
    """

    prompt: float
    answer: float


@dataclass(frozen=True, slots=True)
class GeneratorSummary:
    """All figures of one generator.

    Attributes:
        name: The generator.
        cells: Its cells, in the order they were run.
        by_source: Metric -> source or "macro" -> cell -> estimate.
        differences: Compared cell -> source or "macro" -> other cell -> estimate of the other's
            accuracy subtracted from the compared cell's; `none` and every cell that isn't a
            baseline are compared, see `compared_cells`.
        equal_tokens: Cell of ours -> source or "macro" -> other pruner -> estimate of its accuracy,
            at the tokens of our cell, subtracted from ours; see `equal_tokens.py`.
        mixtures: Cell of ours -> other pruner -> source -> which of its cells that is.
        by_position: Place of the gold chunk -> cell -> estimate of accuracy, sources pooled.
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


@dataclass(frozen=True, slots=True)
class Summariser:
    """Works out a generator's figures.

    Attributes:
        items: The items.
        clusters: Each item's cluster.
        baselines: Names of pruners that are compared with and not compared themselves.
        seed: Seed of the bootstrap.
        resamples: Number of draws.
        prices: What tokens cost; None where it isn't known.
    """

    items: Sequence[Example]
    clusters: Sequence[int]
    baselines: frozenset[str]
    seed: int
    resamples: int
    prices: Prices | None = None

    def summarise(self, results: Sequence[CellResult]) -> GeneratorSummary:
        """Work out the figures of one generator's cells."""
        name, labels = results[0].generator, [result.cell.label for result in results]
        strata = Strata(self.clusters, name, self.seed, self.resamples)
        sources = [item.source for item in self.items]
        by_source: dict[str, dict[str, dict[str, Estimate]]] = {}
        primary: dict[str, Sample] = {}
        for metric in METRIC_TITLES:
            samples = strata.sample(_values(results, metric), sources, metric=metric)
            if samples:
                samples[MACRO] = macro_sample(list(samples.values()))
            by_source[metric] = estimates(samples, labels)
            primary = samples if metric == PRIMARY else primary
        values = _values(results, PRIMARY)
        rows = [row for row in range(len(values)) if not np.isnan(values[row]).any()]
        mixtures = self._mixtures(results, rows)

        def pooled(group: Callable[[Example], str]) -> dict[str, dict[str, Estimate]]:
            groups = [group(item) for item in self.items]
            return estimates(strata.sample(values, groups, metric=PRIMARY), labels)

        return GeneratorSummary(
            name=name,
            cells=tuple(result.cell for result in results),
            by_source=by_source,
            differences={
                label: differences(primary, labels, ours=label)
                for label in compared_cells([result.cell for result in results], self.baselines)
            },
            equal_tokens=self._equal_tokens(results, mixtures, rows, strata),
            mixtures=mixtures,
            by_position=pooled(position_group),
            by_distractors=pooled(distractor_group),
            context_tokens=_context_tokens(results, sources, primary),
            totals={result.cell.label: self._totals(result) for result in results},
            unanswered=_unanswered(results),
        )

    def _mixtures(
        self, results: Sequence[CellResult], rows: Sequence[int]
    ) -> dict[str, dict[str, dict[str, Mixture]]]:
        """Return for each cell of ours what other pruners' cells have its tokens."""
        cells = [result.cell for result in results]
        tokens = _tokens_by_source(results, rows, [self.items[row].source for row in rows])
        changing = {
            result.cell.pruner
            for result in results
            if any(own.pruned.texts is not None for own in result.judged)
        }
        return {
            ours.label: matched(ours, cells, tokens, changing=changing)
            for ours in cells
            if tokens and ours.budget is not None and ours.pruner not in self.baselines
        }

    def _equal_tokens(
        self,
        results: Sequence[CellResult],
        mixtures: Mapping[str, Mapping[str, Mapping[str, Mixture]]],
        rows: Sequence[int],
        strata: Strata,
    ) -> Figures:
        labels = [result.cell.label for result in results]
        values = _values(results, PRIMARY)
        sources = [item.source for item in self.items]
        found: dict[str, dict[str, dict[str, Estimate]]] = {}
        for ours, others in mixtures.items():
            matrix = np.full((len(values), 1 + len(others)), np.nan)
            matrix[rows, 0] = values[rows, labels.index(ours)]
            for column, by_source in enumerate(others.values(), start=1):
                for source, mixture in by_source.items():
                    own = [row for row in rows if sources[row] == source]
                    matrix[own, column] = mixture.values(values[own], labels)
            samples = strata.sample(matrix, sources, metric=PRIMARY)
            if samples and others:
                samples[MACRO] = macro_sample(list(samples.values()))
                found[ours] = differences(samples, [ours, *others], ours=ours)
        return found

    def _totals(self, result: CellResult) -> CellTotals | None:
        judged = result.judged
        answered = [own for own in judged if isinstance(own.result, Answer)]
        answers = [own.result for own in answered if isinstance(own.result, Answer)]
        if not answers:
            return None
        cost = None
        if self.prices is not None:
            given = sum(answer.prompt_tokens for answer in answers)
            made = sum(answer.new_tokens for answer in answers)
            cost = (given * self.prices.prompt + made * self.prices.answer) / 1e6
        return CellTotals(
            context_tokens=_mean(own.context_tokens for own in answered),
            prompt_tokens=_mean(answer.prompt_tokens for answer in answers),
            new_tokens=_mean(answer.new_tokens for answer in answers),
            prune_seconds=_mean(own.pruned.seconds for own in answered),
            prefill_seconds=_known_mean(answer.prefill_seconds for answer in answers),
            decode_seconds=_known_mean(answer.decode_seconds for answer in answers),
            answer_seconds=_mean(answer.seconds for answer in answers),
            asked_again=sum(answer.attempts > 1 for answer in answers),
            empty=sum(not answer.text for answer in answers),
            failed=len(judged) - len(answers),
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


def _values(results: Sequence[CellResult], metric: str) -> npt.NDArray[np.float64]:
    """Return a metric's values, [N, K]; NaN where it isn't defined or there is no answer."""
    columns = [
        [np.nan if own.metrics[metric] is None else own.metrics[metric] for own in result.judged]
        for result in results
    ]
    return np.array(columns, dtype=np.float64).T


def _context_tokens(
    results: Sequence[CellResult], sources: Sequence[str], in_macro: Collection[str]
) -> dict[str, dict[str, float]]:
    """Return mean tokens by source; macro over the sources that have accuracy, or else over all."""
    found = _tokens_by_source(results, range(len(sources)), sources)
    labels = [result.cell.label for result in results]
    meant = [own for source, own in found.items() if source in in_macro] or list(found.values())
    macro = {label: _mean(own[label] for own in meant) for label in labels}
    return {**found, MACRO: macro}


def _tokens_by_source(
    results: Sequence[CellResult], rows: Sequence[int], sources: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return source -> cell -> mean context tokens of the items in these rows of these sources."""
    found: dict[str, dict[str, float]] = {}
    for source in dict.fromkeys(sources):
        own = [row for row, of in zip(rows, sources, strict=True) if of == source]
        found[source] = {
            result.cell.label: _mean(result.judged[row].context_tokens for row in own)
            for result in results
        }
    return found


def _unanswered(results: Sequence[CellResult]) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for place in range(len(results[0].judged)):
        failures = [
            (result.cell.label, result.judged[place].result)
            for result in results
            if isinstance(result.judged[place].result, Failure)
        ]
        if failures:
            reasons[f"no answer from {failures[0][0]}"] += 1
    return dict(reasons)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else float(np.mean(np.array(known, dtype=np.float64)))
