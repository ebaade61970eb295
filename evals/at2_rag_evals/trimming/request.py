"""What `at2-rag eval trimming` is run with; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import click

from at2_rag.cli.command_line import FiniteRange
from at2_rag_evals.request import EvalRequest, option

MultiHopFor = Literal["none", "sentences", "both"]
"""What multi-hop is for: nothing, sentences, or sentences and whole chunks."""

_DEFAULT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Cut:
    """How sentences are chosen: by one of the pruner's limits.

    `share` is `max_tokens` as a share of the best chunks' tokens.
    """

    share: float | None = None
    min_probability: float | None = None
    max_missed: float | None = None
    multi_hop: bool | None = None

    @property
    def label(self) -> str:
        """How the report shows it."""
        parts = {
            "at most {:g} of the tokens": self.share,
            "min_probability {:g}": self.min_probability,
            "max_missed {:g}": self.max_missed,
        }
        shown = [text.format(value) for text, value in parts.items() if value is not None]
        if self.multi_hop is not None:
            shown.append("multi-hop" if self.multi_hop else "no multi-hop")
        return ", ".join(shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmingRequest(EvalRequest):
    """All options of the command, with their defaults."""

    top_k: tuple[int, ...] = option(
        default=(1, 3),
        multiple=True,
        type=click.IntRange(min=1),
        metavar="K",
        help="Compare with the best K chunks. May be repeated.",
        heading="What is judged",
    )
    share: float | None = option(
        type=FiniteRange(min=0, max=1, min_open=True),
        show_default="0.5 where sentences aren't chosen in another way",
        help="Most tokens of the sentences of each item, as a share of those of its chunks.",
        heading="What is judged",
    )
    min_probabilities: tuple[float, ...] = option(
        "--min-probability",
        multiple=True,
        type=FiniteRange(min=0, max=1),
        metavar="P",
        help="Also choose sentences by this probability. May be repeated.",
        heading="What is judged",
    )
    max_missed: tuple[float, ...] = option(
        multiple=True,
        type=FiniteRange(min=0, max=1),
        metavar="X",
        help="Also choose sentences by this max_missed. May be repeated.",
        heading="What is judged",
    )
    multi_hop: MultiHopFor | None = option(
        type=click.Choice(["none", "sentences", "both"]),
        show_default="for sentences where a max_missed asks for it",
        help="Read again with the best chunk: for nothing, for sentences, or for sentences and "
        "whole chunks.",
        heading="What is judged",
    )

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """How sentences are chosen."""
        shares = [] if self.share is None else [self.share]
        if not (shares or self.min_probabilities or self.max_missed):
            shares = [_DEFAULT_SHARE]
        hop = None if self.multi_hop is None else self.multi_hop != "none"
        return (
            *(Cut(share=share, multi_hop=hop) for share in shares),
            *(Cut(min_probability=p, multi_hop=hop) for p in dict.fromkeys(self.min_probabilities)),
            *(Cut(max_missed=most, multi_hop=hop) for most in dict.fromkeys(self.max_missed)),
        )
