"""Does pruning help, by how much, at which setting? The first lines of the QA report."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from at2_rag.report.verdict import Verdict
from at2_rag_evals.bootstrap import Estimate
from at2_rag_evals.names import in_prose
from at2_rag_evals.qa.chosen import Choice
from at2_rag_evals.qa.gold_position import PositionSummary
from at2_rag_evals.qa.judging import PRIMARY
from at2_rag_evals.qa.run import CellName
from at2_rag_evals.qa.summary import BASELINE, GeneratorSummary
from at2_rag_evals.summary import MACRO
from at2_rag_evals.verdict import (
    MARGIN,
    Effect,
    doubt,
    effect,
    fewer,
    percent,
    points,
)

NO_CONTEXT = "closed_book"
CONTROLS = frozenset({BASELINE, NO_CONTEXT, "oracle", "random_k", "all_heads_mean"})
"""Pruners that nobody would use: they say what the others are worth."""

_RULE = (
    "Recommended is the setting with the fewest prompt tokens among those within 2 points of the "
    "best accuracy, of all whose 95 % interval against every chunk excludes a loss of more than 2 "
    "points."
)

_PLACES = {
    "quarter": "a quarter of the way down",
    "middle": "in the middle",
    "three-quarter": "three quarters of the way down",
    "last": "in last place",
}


@dataclass(frozen=True, slots=True)
class _Setting:
    """A cell that could be recommended, beside every chunk."""

    label: str
    accuracy: Estimate
    difference: Estimate  # minus every chunk
    tokens: float | None  # of a prompt; None where nothing was answered
    all_tokens: float | None  # of a prompt with every chunk

    @property
    def effect(self) -> Effect:
        """What the difference shows."""
        return effect(self.difference)

    @property
    def saves(self) -> bool:
        """Whether prompts get shorter."""
        return None not in (self.tokens, self.all_tokens) and self.less.endswith("fewer")

    @property
    def helps(self) -> bool:
        """Whether somebody should use it: more right answers, or as many from fewer tokens."""
        return self.effect == "better" or (self.effect == "unharmed" and self.saves)

    @property
    def less(self) -> str:
        """How many tokens fewer a prompt has."""
        if self.tokens is None or self.all_tokens is None:
            return "an unknown number of"
        return fewer(self.tokens, self.all_tokens)


def qa_verdict(
    summary: GeneratorSummary,
    *,
    baselines: Collection[str],
    choices: Sequence[Choice] = (),
    chosen_on: Path | None = None,
) -> Verdict:
    """Return what a generator's figures say about pruning.

    Args:
        summary: The figures.
        baselines: Names of the pruners that aren't ours.
        choices: Settings chosen on another run; if there are any of this generator, only they are
            considered.
        chosen_on: The folder of that run.
    """
    question = f"Does pruning help {summary.name}?"
    candidates = [cell for cell in summary.cells if cell.pruner not in CONTROLS]
    rule = _RULE
    if len(candidates) > 1:
        rule += (
            f" Picked from {len(candidates)} settings on the questions that it is judged on, it "
            "looks a little too good; --chosen-on picks on others."
        )
    chosen = {choice.cell for choice in choices if choice.generator == summary.name}
    if chosen and chosen_on is not None:
        candidates = [cell for cell in candidates if cell in chosen]
        rule = f"{_RULE} Only settings chosen on {chosen_on.resolve().name} are considered."
    accuracy = summary.macro(PRIMARY)
    if not candidates:
        return Verdict(question, "No verdict", ("no pruner was run that anyone would use.",))
    if not accuracy:
        reason = "no question with a short answer was answered, which accuracy is about."
        return Verdict(question, "No verdict", (reason,))
    if BASELINE not in accuracy:
        return Verdict(question, "No verdict", tuple(_without_baseline(summary, candidates)))
    settings = _settings(summary, candidates)
    answer, setting = _decide(settings)
    reasons = [_reason(answer, setting, accuracy[BASELINE], several=len(settings) > 1)]
    if answer == "Can't tell":
        reasons.append(doubt(setting.difference))
    if answer != "No":
        reasons += _rival(summary, setting, baselines)
    without = summary.minus_baseline().get(NO_CONTEXT)
    if without is not None and effect(without) in ("better", "unharmed"):
        reasons.append(
            "But it did as well without any chunk, so these questions say little about what chunks "
            "are worth to it."
        )
    unclear = f" from {setting.difference.n:,} questions" if answer == "Can't tell" else ""
    return Verdict(
        question,
        answer + unclear,
        tuple(reasons),
        rule,
        setting.label if answer == "Yes" else None,
        tuple(_figures(summary, setting)),
    )


def position_verdict(summary: PositionSummary) -> Verdict:
    """Return what a generator's figures say about the place of the gold chunk."""
    question = f"Does the place of the gold chunk matter to {summary.name}?"
    rule = (
        "Yes, if the 95 % interval of a place's accuracy minus that of first place, paired, "
        "excludes zero for any setting."
    )
    differences = [
        (position, label, estimate)
        for position, cells in summary.minus_first[MACRO].items()
        for label, estimate in cells.items()
    ]
    certain = [each for each in differences if effect(each[2], margin=0) in ("better", "worse")]
    position, label, largest = max(certain or differences, key=lambda each: abs(each[2].mean))
    reason = (
        f"with {in_prose(label)}, gold {_PLACES[position]} instead of in first place changes the "
        f"share of right answers by {points(largest)}"
    )
    if certain:
        return Verdict(question, "Yes", (f"{reason}, the largest difference.",), rule)
    answer = f"Can't tell from {largest.n:,} questions"
    return Verdict(question, answer, (f"{reason}, the largest difference, within chance.",), rule)


def _settings(summary: GeneratorSummary, cells: Sequence[CellName]) -> list[_Setting]:
    accuracy, less_baseline = summary.macro(PRIMARY), summary.minus_baseline()
    whole = summary.totals.get(BASELINE)
    settings = []
    for cell in cells:
        totals = summary.totals[cell.label]
        settings.append(
            _Setting(
                cell.label,
                accuracy[cell.label],
                less_baseline[cell.label],
                None if totals is None else totals.prompt_tokens,
                None if whole is None else whole.prompt_tokens,
            )
        )
    return settings


def _decide(settings: Sequence[_Setting]) -> tuple[str, _Setting]:
    """Return the answer and the setting that it is about."""
    helpful = [each for each in settings if each.helps]
    if helpful:
        return "Yes", _cheapest_of_the_best(helpful)
    if unclear := [each for each in settings if each.effect == "unclear"]:
        return "Can't tell", _cheapest_of_the_best(unclear)
    return "No", max(settings, key=lambda each: each.difference.mean)


def _cheapest_of_the_best(settings: Sequence[_Setting]) -> _Setting:
    best = max(each.accuracy.mean for each in settings)
    # Rounded, so that what floating point adds to a difference of two points doesn't decide.
    close = [each for each in settings if round(best - each.accuracy.mean, 9) <= MARGIN]
    return min(close, key=lambda each: (each.tokens or math.inf, -each.accuracy.mean))


def _reason(answer: str, setting: _Setting, baseline: Estimate, *, several: bool) -> str:
    name = in_prose(setting.label)
    shares = (
        f"{percent(setting.accuracy.mean)} of the answers are right instead of "
        f"{percent(baseline.mean)} with every chunk ({points(setting.difference)}), with "
        f"{setting.less} prompt tokens."
    )
    if answer == "Yes":
        if setting.effect == "better":
            return f"with {name}, {shares}"
        harm = "does no harm" if setting.difference.mean >= 0 else "costs less than 2 points"
        return f"pruning with {name} {harm}: {shares}"
    if answer != "No":
        return f"with {name}, {shares}"
    if setting.effect == "unharmed":
        return f"nothing is gained. With {name}, {shares}"
    if several:
        return f"every setting that was tried loses answers, {name} the fewest: {shares}"
    return f"{name} loses answers: {shares}"


def _rival(
    summary: GeneratorSummary, setting: _Setting, baselines: Collection[str]
) -> Iterator[str]:
    """Compare a setting with the best one of the others: ours with theirs, theirs with ours."""
    accuracy = summary.macro(PRIMARY)
    pruners = {cell.label: cell.pruner for cell in summary.cells if cell.pruner not in CONTROLS}
    is_ours = pruners[setting.label] not in baselines
    others = [label for label, name in pruners.items() if (name not in baselines) != is_ours]
    if not others:
        return
    other = max(others, key=lambda label: accuracy[label].mean)
    ours, theirs = (setting.label, other) if is_ours else (other, setting.label)
    difference = summary.differences[ours][MACRO][theirs]
    how = {"better": "ahead of", "worse": "behind"}.get(
        effect(difference, margin=0), "not told apart from"
    )
    if is_ours:
        yield f"It is {how} the best alternative, {in_prose(other)}: {points(difference)}."
    else:
        yield f"at2's best setting, {in_prose(other)}, is {how} it: {points(difference)}."


def _without_baseline(summary: GeneratorSummary, cells: Sequence[CellName]) -> Iterator[str]:
    yield (
        "answers from every chunk are missing, so there is nothing to compare with; run the eval "
        "with --pruner none, too."
    )
    accuracy = summary.macro(PRIMARY)
    best = max(cells, key=lambda cell: accuracy[cell.label].mean)
    share = percent(accuracy[best.label].mean)
    yield f"Of what was run, {in_prose(best.label)} has the most right answers ({share})."


def _figures(summary: GeneratorSummary, setting: _Setting) -> Iterator[tuple[str, str]]:
    baseline = summary.macro(PRIMARY)[BASELINE]
    beside = "with every chunk"
    right = f"right answers with {in_prose(setting.label)}; {percent(baseline.mean)} {beside}"
    yield percent(setting.accuracy.mean), right
    one, whole = summary.totals[setting.label], summary.totals[BASELINE]
    if one is None or whole is None:
        return
    yield f"{one.prompt_tokens:,.0f}", f"tokens a prompt; {whole.prompt_tokens:,.0f} {beside}"
    seconds = [each.prune_seconds + each.answer_seconds for each in (one, whole)]
    yield f"{seconds[0]:.2f} s", f"to prune and answer; {seconds[1]:.2f} s {beside}"
