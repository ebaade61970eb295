"""What `at2-rag eval fidelity` is run with; its fields are the command's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from at2_rag_evals.named_systems import (
    NamedSystem,
    embedding_attributes,
    weights_attributes,
    with_named,
)
from at2_rag_evals.rankers.registry import BASELINES, RANKERS, VARIANTS
from at2_rag_evals.request import FILE, EvalRequest, option
from at2_rag_evals.system_options import system_option

if TYPE_CHECKING:
    from at2_rag_evals.fidelity.removal import AnswerSource
    from at2_rag_evals.fidelity.sources import Unit

HEAD_COUNTS: Mapping[str, int] = MappingProxyType({"best_head": 1, "heads_8": 8, "heads_16": 16})
_SYSTEMS = (
    *HEAD_COUNTS,
    *("answer_heads_mean", "at2_answer", "gold"),
    *("leave_one_out", "regression_32", "masked_regression"),
)
KNOWN_SYSTEMS = (*BASELINES, "all_heads_mean", "at2", "at2_joint", *_SYSTEMS)
DEFAULT_SYSTEMS = tuple(name for name in KNOWN_SYSTEMS if name not in {*VARIANTS, "first_k"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityRequest(EvalRequest):
    """All options of the command, with their defaults."""

    weights: tuple[NamedSystem, ...] = option(
        **weights_attributes((*RANKERS, *_SYSTEMS)),
        heading="What is judged",
    )
    answer_weights: str | None = option(
        help="Head weights of at2_answer: a folder, the name of shipped ones, or uniform.",
        heading="What is judged",
    )
    embeddings: tuple[NamedSystem, ...] = option(
        "--embedding",
        **embedding_attributes((*RANKERS, *_SYSTEMS)),
        heading="What is judged",
    )
    embedding_model: str | None = option(
        help="sentence-transformers model of minilm: a folder or a hub id.",
        heading="What is judged",
    )
    train: tuple[Path, ...] = option(
        multiple=True,
        type=FILE,
        help="Training file on which attention heads are chosen. May be repeated.",
        heading="What is judged",
    )
    unit: Unit = option(
        default="chunk",
        type=click.Choice(["chunk", "sentence"]),
        help="What is removed and scored: chunks, or sentences of them.",
        heading="Ablations",
    )
    max_sentences: int = option(
        default=60,
        type=click.IntRange(min=4),
        help="Leave out items with more sentences, with --unit sentence.",
        heading="Ablations",
    )
    masks: int = option(
        default=32,
        type=click.IntRange(min=2),
        help="Held masks an item, of each keep rate.",
        heading="Ablations",
    )
    answers: AnswerSource = option(
        default="generated",
        type=click.Choice(["generated", "reference"]),
        help="Whose answers: the model's own, or the first reference answer.",
        heading="Ablations",
    )
    answer_tokens: int = option(
        default=32,
        type=click.IntRange(min=1),
        help="Most tokens of a generated answer.",
        heading="Ablations",
    )
    systems: tuple[str, ...] = system_option(
        "--system",
        KNOWN_SYSTEMS,
        DEFAULT_SYSTEMS,
        help="Judge this system",
        but="; those of chosen heads only with --train",
    )

    @property
    def left_out(self) -> Mapping[str, str]:
        """Systems that this run can't have -> why."""
        reasons = {}
        if not self.train:
            reasons = dict.fromkeys(HEAD_COUNTS, "choosing heads needs --train FILE")
        if self.unit == "sentence":
            reasons["masked_regression"] = "masked chunk states have no sentence form"
        return {name: reasons[name] for name in self.systems if name in reasons}

    @property
    def judged(self) -> tuple[str, ...]:
        """The systems' names, in the report's order, without those left out."""
        names = with_named(tuple(dict.fromkeys(self.systems)), self.weights, self.embeddings)
        return tuple(name for name in names if name not in self.left_out)
