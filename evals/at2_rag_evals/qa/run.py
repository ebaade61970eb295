"""Runs cells: a generator answers every item from what a pruner kept within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from at2_rag.chunks import DEFAULT_SEPARATOR
from at2_rag.selection import Order
from at2_rag.training.examples import Example
from at2_rag_evals.qa.answer_store import AnswerStore
from at2_rag_evals.qa.budgets import Budget
from at2_rag_evals.qa.generators.base import Generator
from at2_rag_evals.qa.judging import Judged, judge
from at2_rag_evals.qa.pruners.base import Limit, Pruned, Pruner
from at2_rag_evals.qa.wording import prompt_text

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CellName:
    """What tells a cell from others of its generator.

    Attributes:
        pruner: The pruner's name.
        budget: The budget's label; None where the budget makes no difference.
    """

    pruner: str
    budget: str | None

    @property
    def label(self) -> str:
        """What the report calls the cell: "at2, top 3" or "none"."""
        return self.pruner if self.budget is None else f"{self.pruner}, {self.budget}"


@dataclass(frozen=True, slots=True)
class CellResult:
    """A finished cell.

    Attributes:
        generator: The generator's name.
        cell: Its name.
        judged: How each item went, in the items' order.
    """

    generator: str
    cell: CellName
    judged: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run.

    Attributes:
        items: The items.
        generators: Who answers.
        pruners: What keeps chunks.
        budgets: How much they may keep.
        order: The order in which kept chunks are passed on.
        may_decline: Whether generators are told how to say that there is no answer.
        folder: Where answers are kept as they are made, and found by a later run; None for
            nowhere.
    """

    items: Sequence[Example]
    generators: Sequence[Generator]
    pruners: Sequence[Pruner]
    budgets: Sequence[Budget]
    order: Order = "score"
    may_decline: bool = False
    folder: Path | None = None

    def cells(self, pruner: Pruner) -> list[tuple[CellName, Budget]]:
        """Return a pruner's cells with their budgets; one alone where budgets don't matter."""
        if not pruner.budgeted:
            return [(CellName(pruner.name, None), self.budgets[0])]
        return [(CellName(pruner.name, budget.label), budget) for budget in self.budgets]


def run_cells(
    plan: Plan, *, progress: Progress = lambda stage, done, total: None
) -> list[CellResult]:
    """Run every cell of a plan.

    Args:
        plan: What to run.
        progress: Called with a stage's name, its steps done and in all.

    Raises:
        ScoringError: If a pruner fails on an item.
        GenerationError: If a generator gives up.
    """
    return [
        result
        for generator in plan.generators
        for result in _generator_cells(plan, generator, progress)
    ]


def _generator_cells(plan: Plan, generator: Generator, progress: Progress) -> Iterator[CellResult]:
    store = AnswerStore(generator, plan.folder)
    prefix = f"{generator.name}: " if len(plan.generators) > 1 else ""
    for pruner in plan.pruners:
        kept = _prune_all(plan, pruner, generator, f"{prefix}{pruner.name} prunes", progress)
        for (cell, _), own in zip(plan.cells(pruner), kept, strict=True):
            stage = f"{prefix}answers from {cell.label}"
            yield CellResult(
                generator.name, cell, _answer_all(plan, generator, store, own, stage, progress)
            )


def _prune_all(
    plan: Plan, pruner: Pruner, generator: Generator, stage: str, progress: Progress
) -> list[list[Pruned]]:
    """Return what is kept of each item in each of the pruner's cells."""
    limits = [Limit(budget, plan.order, generator.count) for _, budget in plan.cells(pruner)]
    kept: list[list[Pruned]] = [[] for _ in limits]
    progress(stage, 0, len(plan.items))
    for done, item in enumerate(plan.items, start=1):
        for limit, own in zip(limits, kept, strict=True):
            own.append(pruner.prune(item, limit))
        progress(stage, done, len(plan.items))
    return kept


def _answer_all(
    plan: Plan,
    generator: Generator,
    store: AnswerStore,
    kept: Sequence[Pruned],
    stage: str,
    progress: Progress,
) -> tuple[Judged, ...]:
    chunks = [
        [item.chunks[place] for place in pruned.kept]
        for item, pruned in zip(plan.items, kept, strict=True)
    ]
    prompts = [
        prompt_text(item.query, own, may_decline=plan.may_decline)
        for item, own in zip(plan.items, chunks, strict=True)
    ]
    results = store.answers(prompts, progress=lambda done, total: progress(stage, done, total))
    tokens = [
        generator.count(DEFAULT_SEPARATOR.join(chunk.rendered for chunk in own)) if own else 0
        for own in chunks
    ]
    return tuple(map(judge, plan.items, kept, tokens, results))
