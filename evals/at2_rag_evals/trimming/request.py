"""What `at2-rag eval trimming` is run with; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import click

from at2_rag_evals.request import EvalRequest, option

MultiHopFor = Literal["none", "sentences", "both"]
"""What multi-hop is for: nothing, sentences, or sentences and whole chunks."""

_DEFAULT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Cut:
    """How sentences are chosen: by one of three limits.

    Attributes:
        share: Most tokens, as a share of those of the best chunks.
        min_probability: The pruner's.
        max_missed: The pruner's.
        multi_hop: The pruner's.
    """

    share: float | None = None
    min_probability: float | None = None
    max_missed: float | None = None
    multi_hop: bool | None = None

    @property
    def label(self) -> str:
        """How the report shows it."""
        parts = [] if self.share is None else [f"at most {self.share:g} of the tokens"]
        if self.min_probability is not None:
            parts.append(f"min_probability {self.min_probability:g}")
        parts += [] if self.max_missed is None else [f"max_missed {self.max_missed:g}"]
        parts += {None: [], True: ["multi-hop"], False: ["no multi-hop"]}[self.multi_hop]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmingRequest(EvalRequest):
    """All options of the command, with their defaults."""

    top_k: tuple[int, ...] = option(
        default=(1, 3),
        multiple=True,
        type=click.IntRange(min=1),
        metavar="K",
        help="Compare with the best K chunks. May be repeated.",
    )
    share: float | None = option(
        type=click.FloatRange(min=0, max=1, min_open=True),
        show_default="0.5 where sentences aren't chosen in another way",
        help="Most tokens of the sentences of each item, as a share of those of its chunks.",
    )
    min_probabilities: tuple[float, ...] = option(
        "--min-probability",
        multiple=True,
        type=click.FloatRange(min=0, max=1),
        metavar="P",
        help="Also choose sentences by this probability. May be repeated.",
    )
    max_missed: tuple[float, ...] = option(
        multiple=True,
        type=click.FloatRange(min=0),
        metavar="T",
        help="Also choose sentences by this max_missed. May be repeated.",
    )
    multi_hop: MultiHopFor | None = option(
        type=click.Choice(["none", "sentences", "both"]),
        show_default="for sentences where a max_missed asks for it",
        help="Read again with the best chunk: for nothing, for sentences, for them and whole "
        "chunks.",
    )

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """How sentences are chosen."""
        share = self.share
        if share is None and not self.min_probabilities and not self.max_missed:
            share = _DEFAULT_SHARE
        hop = None if self.multi_hop is None else self.multi_hop != "none"
        return (
            *([] if share is None else [Cut(share=share, multi_hop=hop)]),
            *(Cut(min_probability=p, multi_hop=hop) for p in dict.fromkeys(self.min_probabilities)),
            *(Cut(max_missed=most, multi_hop=hop) for most in dict.fromkeys(self.max_missed)),
        )
