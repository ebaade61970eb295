"""What `at2-rag eval keeping` is run with; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass

import click

from at2_rag_evals.keeping.attacks import ATTACKS
from at2_rag_evals.named_systems import NamedSystem, embedding_attributes, with_named
from at2_rag_evals.rankers.registry import BASELINES, RANKERS
from at2_rag_evals.request import EvalRequest, option
from at2_rag_evals.system_options import system_option


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepingRequest(EvalRequest):
    """All options of the command, with their defaults."""

    attacks: tuple[str, ...] = option(
        "--attack",
        multiple=True,
        type=click.Choice(tuple(ATTACKS)),
        help="Also judge with a chunk of this attack among each item's. May be repeated.",
        heading="Items",
    )
    systems: tuple[str, ...] = system_option(
        "--system",
        BASELINES,
        (),
        help="Also rank with this baseline, which keeps as many chunks as at2 does",
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

    @property
    def judged(self) -> tuple[str, ...]:
        """The baselines' names, in the report's order."""
        return with_named(tuple(dict.fromkeys(self.systems)), embeddings=self.embeddings)
