"""What `at2-rag eval qa` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from at2_rag.options import Order
from at2_rag_evals.named_weights import NamedWeights, with_named
from at2_rag_evals.provenance import weights_arguments, without_folder
from at2_rag_evals.qa.budgets import Budget, adaptive_name
from at2_rag_evals.qa.generators.registry import GeneratorOptions
from at2_rag_evals.qa.readers.registry import Dataset
from at2_rag_evals.qa.shipped_set import ITEMS
from at2_rag_evals.qa.summary import Prices


@dataclass(frozen=True, slots=True)
class QARequest:
    """The fields are the command's arguments."""

    files: tuple[Path, ...]
    output: Path
    pruners: tuple[str, ...]
    datasets: tuple[Dataset, ...] = ()
    top_k: tuple[int, ...] = ()
    max_tokens: tuple[int, ...] = ()
    max_missed: tuple[float, ...] = ()
    multi_hop: bool | None = None
    generators: tuple[str, ...] = ("default",)
    limit: int | None = None
    seed: int = 0
    orders: tuple[Order, ...] = ("score",)
    gold_position: bool = False
    may_decline: bool = False
    model: str | None = None
    head_weights: str | None = None
    weights: tuple[NamedWeights, ...] = ()
    embedding_model: str | None = None
    train: tuple[Path, ...] = ()
    chosen_on: Path | None = None
    generator: GeneratorOptions = field(default_factory=GeneratorOptions)
    prices: Prices | None = None

    @property
    def judged(self) -> tuple[str, ...]:
        """All pruners' names, in the report's order."""
        adaptive = [
            adaptive_name(max_missed, multi_hop=self.multi_hop) for max_missed in self.max_missed
        ]
        return (*with_named(self.pruners, self.weights), *adaptive)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All budgets; top 1 and top 3 where none was asked for."""
        found = [Budget(top_k=number) for number in self.top_k]
        found += [Budget(max_tokens=number) for number in self.max_tokens]
        return tuple(dict.fromkeys(found)) or (Budget(top_k=1), Budget(top_k=3))

    @property
    def command(self) -> str:
        """The command line, with the names of files and folders but not where they are."""
        shipped = self.files == (ITEMS,) and not self.datasets
        parts = ["at2-rag eval qa", *([] if shipped else [path.name for path in self.files])]
        parts += [f"--dataset {own.name}={own.path.resolve().name}" for own in self.datasets]
        parts += [f"--pruner {name}" for name in self.pruners]
        parts += weights_arguments(self.weights)
        for budget in self.budgets:
            limit = budget.top_k if budget.max_tokens is None else budget.max_tokens
            parts.append(f"{'--top-k' if budget.max_tokens is None else '--max-tokens'} {limit}")
        parts += [f"--max-missed {max_missed:g}" for max_missed in self.max_missed]
        if self.multi_hop is not None:
            parts.append("--multi-hop" if self.multi_hop else "--no-multi-hop")
        parts += [f"--generator {without_folder(spec)}" for spec in self.generators]
        parts += [] if self.limit is None else [f"--limit {self.limit}"]
        parts += [f"--seed {self.seed}", *(f"--order {order}" for order in self.orders)]
        parts += ["--gold-position"] if self.gold_position else []
        parts += ["--may-decline"] if self.may_decline else []
        parts += [f"--answer-tokens {self.generator.answer_tokens}"]
        for option, value in (
            ("--model", self.model),
            ("--head-weights", self.head_weights),
            ("--embedding-model", self.embedding_model),
            ("--token-counter", self.generator.token_counter),
            ("--chosen-on", None if self.chosen_on is None else str(self.chosen_on)),
            ("--output", str(self.output)),
        ):
            parts += [] if value is None else [f"{option} {without_folder(value)}"]
        return " ".join([*parts, *(f"--train {path.name}" for path in self.train)])
