"""Runs cells: a generator answers every item from what a pruner kept within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.options import Order
from at2_rag.text.chunks import DEFAULT_SEPARATOR
from at2_rag_evals.qa.answer_store import AnswerStore
from at2_rag_evals.qa.budgets import Budget
from at2_rag_evals.qa.generators.base import Generator
from at2_rag_evals.qa.judging import Judged, judge
from at2_rag_evals.qa.pruners.base import Limit, Pruned, Pruner
from at2_rag_evals.qa.stage_peaks import StagePeaks
from at2_rag_evals.qa.wording import prompt_text
from at2_rag_evals.store import settings_key

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, its steps done and in all."""

ORDERS: Mapping[Order | None, str] = {"original": "original order", "best_last": "best last"}
"""What reports call orders; nothing for the default."""


@dataclass(frozen=True, slots=True)
class CellName:
    """A pruner with a budget's label and an order; None where those make no difference to it."""

    pruner: str
    budget: str | None = None
    order: Order | None = None

    @property
    def label(self) -> str:
        """What the report calls the cell: "at2, top 3", "at2, top 3, best last" or "none"."""
        parts = (self.pruner, self.budget, ORDERS.get(self.order))
        return ", ".join(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class CellResult:
    """A finished cell: how each item went, in order.

    Peaks are the most bytes that pruning and answering took above what the process held before;
    None where they aren't known.
    """

    generator: str
    cell: CellName
    judged: tuple[Judged, ...]
    prune_peak: int | None = None
    answer_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: each generator answers each item from what each pruner keeps in each cell."""

    items: Sequence[Example]
    generators: Sequence[Generator]
    pruners: Sequence[Pruner]
    budgets: Sequence[Budget]
    orders: Sequence[Order] = ("score",)
    may_decline: bool = False  # whether generators learn how to say that there is no answer
    store: Path | None = None  # where answers are stored as they are made
    peaks: StagePeaks = field(default_factory=StagePeaks)

    def cells(self, pruner: Pruner) -> dict[CellName, tuple[Budget, Order]]:
        """Return a pruner's cells with their budget and order, none twice."""
        cells: dict[CellName, tuple[Budget, Order]] = {}
        for budget in self.budgets:
            for order in self.orders:
                cell = CellName(
                    pruner.name,
                    budget.label if pruner.budgeted else None,
                    order if pruner.ordered else None,
                )
                cells.setdefault(cell, (budget, order))
        return cells


def run_cells(
    plan: Plan, *, progress: Progress = lambda stage, done, total: None
) -> list[CellResult]:
    """Run every cell of a plan.

    Raises:
        ScoringError: If a pruner fails on an item.
        GenerationError: If a generator gives up.
    """
    total = len(plan.generators) * sum(len(plan.cells(pruner)) for pruner in plan.pruners)
    results: list[CellResult] = []
    progress("all cells", 0, total)
    for generator in plan.generators:
        for result in _generator_cells(plan, generator, progress):
            results.append(result)
            progress("all cells", len(results), total)
    return results


def _generator_cells(plan: Plan, generator: Generator, progress: Progress) -> Iterator[CellResult]:
    store = AnswerStore(generator, plan.store)
    prefix = f"{generator.name}: " if len(plan.generators) > 1 else ""

    def noting(note: Callable[[], None], stage: str) -> Callable[[int, int], None]:
        """Return a stage's progress, which also notes the memory taken so far."""

        def noted(done: int, total: int) -> None:
            note()
            progress(prefix + stage, done, total)

        return noted

    for pruner in plan.pruners:
        # Stages are told apart by the settings of what takes part in them.
        pruning = f"prune, {settings_key(pruner)}"
        with plan.peaks.measure(pruning) as note:
            pruned = _prune_all(plan, pruner, generator, noting(note, f"{pruner.name} prunes"))
        for cell, kept in pruned.items():
            stage = f"answers from {cell.label}"
            answering = ", ".join(
                [f"answer from {cell.label}", settings_key(pruner), settings_key(generator)]
            )
            with plan.peaks.measure(answering) as note:
                judged = _answer_all(plan, generator, store, kept, noting(note, stage))
            yield CellResult(
                generator.name, cell, judged, plan.peaks.of(pruning), plan.peaks.of(answering)
            )


def _prune_all(
    plan: Plan, pruner: Pruner, generator: Generator, progress: Callable[[int, int], None]
) -> dict[CellName, list[Pruned]]:
    """Return what is kept of each item in each of the pruner's cells."""
    limits = {
        cell: Limit(budget, order, generator.count)
        for cell, (budget, order) in plan.cells(pruner).items()
    }
    kept: dict[CellName, list[Pruned]] = {cell: [] for cell in limits}
    progress(0, len(plan.items))
    for done, item in enumerate(plan.items, start=1):
        for cell, limit in limits.items():
            kept[cell].append(pruner.prune(item, limit))
        progress(done, len(plan.items))
    return kept


def _answer_all(
    plan: Plan,
    generator: Generator,
    store: AnswerStore,
    kept: Sequence[Pruned],
    progress: Callable[[int, int], None],
) -> tuple[Judged, ...]:
    contexts = [
        pruned.passed_on(item.chunks) for item, pruned in zip(plan.items, kept, strict=True)
    ]
    prompts = [
        prompt_text(item.query, chunks, may_decline=plan.may_decline)
        for item, chunks in zip(plan.items, contexts, strict=True)
    ]
    results = store.answers(prompts, progress=progress)
    tokens = [
        generator.count(DEFAULT_SEPARATOR.join(chunk.rendered for chunk in chunks)) if chunks else 0
        for chunks in contexts
    ]
    return tuple(map(judge, plan.items, kept, tokens, results))
