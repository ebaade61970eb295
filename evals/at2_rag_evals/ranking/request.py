"""What `at2-rag eval ranking` is run with; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass

import click

from at2_rag_evals.named_systems import (
    NamedSystem,
    embedding_attributes,
    weights_attributes,
    with_named,
)
from at2_rag_evals.rankers.registry import RANKERS, VARIANTS
from at2_rag_evals.request import EvalRequest, option
from at2_rag_evals.system_options import system_option

DEFAULT_SYSTEMS = tuple(name for name in RANKERS if name not in VARIANTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRequest(EvalRequest):
    """All options of the command, with their defaults."""

    pad_to: tuple[int, ...] = option(
        multiple=True,
        type=click.IntRange(min=5),
        metavar="N",
        help="Also judge items padded to N chunks with other items' distractors. May be repeated.",
        heading="Items",
    )
    weights: tuple[NamedSystem, ...] = option(
        **weights_attributes(RANKERS),
        heading="What is judged",
    )
    embeddings: tuple[NamedSystem, ...] = option(
        "--embedding",
        **embedding_attributes(RANKERS),
        heading="What is judged",
    )
    embedding_model: str | None = option(
        help="sentence-transformers model of minilm: a folder or a hub id.",
        heading="What is judged",
    )
    systems: tuple[str, ...] = system_option(
        "--system", RANKERS, DEFAULT_SYSTEMS, help="Judge this system"
    )

    @property
    def judged(self) -> tuple[str, ...]:
        """All systems' names, in the report's order."""
        return with_named(tuple(dict.fromkeys(self.systems)), self.weights, self.embeddings)
