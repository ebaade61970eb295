"""How much is kept: the limits of a pruning, and what they may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

from at2_rag.errors import InputError
from at2_rag.text.chunks import Prior
from at2_rag.text.protection import Protect, pattern_of

Order: TypeAlias = Literal["score", "original"]
DEFAULT_MAX_OVERLAP = 0.9
"""Share of a chunk's runs of words that better chunks contain from which on it is redundant."""

DEFAULT_TOP_K = 3
"""Chunks that adapters keep where no limit is given and scores aren't calibrated."""

DEFAULT_MAX_MISSED = 0.8
"""What calibrated scores are held against where no limit is given, see `select`."""

UNANSWERABLE_BELOW = 0.5
"""Probability that anything helps below which nothing seems to."""

IfUnanswerable: TypeAlias = Literal["flag", "keep_best", "keep_none"]
"""What is kept where no chunk seems to help: as ever, the best one, or nothing."""

Unit: TypeAlias = Literal["chunk", "sentence"]
"""What the limits choose and count: whole chunks, or units of their texts."""


LIMITS = ("top_k", "max_tokens", "min_score", "top_p", "max_missed")
"""Names of what bounds how much is kept; without any of them nothing says what matters enough."""

OPTIONS = (
    *("max_tokens", "min_score", "top_p", "max_missed", "skip_below_tokens", "order", "unit"),
    *("protect", "max_overlap", "if_unanswerable", "prior", "multi_hop"),
)
"""Names of what `AT2Pruner.prune` takes besides `top_k`, which adapters call `top_n`."""


def has_limit(options: Mapping[str, Any]) -> bool:
    """Tell whether options of a pruning, by their names, hold a limit."""
    return any(options.get(name) is not None for name in LIMITS)


def or_default(options: Mapping[str, Any], *, calibrated: bool) -> dict[str, Any]:
    """Return options of a pruning with `DEFAULT_TOP_K` where a limit is needed and none is given.

    Args:
        options: Arguments of `AT2Pruner.prune` by their names.
        calibrated: Whether scores will be, which can do without a limit.
    """
    needed = not (calibrated or has_limit(options))
    return {**options, "top_k": DEFAULT_TOP_K} if needed else dict(options)


def check_limits(
    *,
    top_k: int | None = None,
    max_tokens: int | None = None,
    min_score: float | None = None,
    top_p: float | None = None,
    max_missed: float | None = None,
    skip_below_tokens: int | None = None,
    order: str = "score",
    unit: str = "chunk",
    protect: Protect | None = None,
    max_overlap: float | None = None,
    if_unanswerable: str = "flag",
    prior: str | None = None,
    multi_hop: bool | None = None,
) -> None:
    """Check the arguments of a pruning before any model has run.

    Arguments as in `AT2Pruner.prune`. Whether ranges to protect are there is seen with the chunks.

    Raises:
        InputError: If no limit is given, or an argument is not of its kind.
    """
    given = dict(zip(LIMITS, (top_k, max_tokens, min_score, top_p, max_missed), strict=True))
    if not has_limit(given):
        raise InputError(
            "no limit was given; pass at least one of top_k, max_tokens, min_score, top_p, "
            "or use calibrated head weights"
        )
    counts = {"top_k": top_k, "max_tokens": max_tokens, "skip_below_tokens": skip_below_tokens}
    for name, count in counts.items():
        if count is not None and not (_is(count, Integral) and count >= 1):
            raise InputError(
                f"{name} is {count!r}; pass an integer of at least 1, or None for no such limit"
            )
    _check_number("min_score", min_score, least=-math.inf, what="a finite number")
    _check_number("max_missed", max_missed, least=0, what="a finite number of at least 0")
    for name, share in (("top_p", top_p), ("max_overlap", max_overlap)):
        if share is not None and not (_is(share, Real) and 0 < share <= 1):
            raise InputError(
                f"{name} is {share!r}; pass a number above 0 and at most 1, "
                "or None for no such limit"
            )
    if isinstance(protect, str):
        pattern_of(protect)
    _check_choice("order", order, get_args(Order))
    _check_choice("unit", unit, get_args(Unit))
    _check_choice("if_unanswerable", if_unanswerable, get_args(IfUnanswerable))
    if prior is not None:
        _check_choice("prior", prior, get_args(Prior))
    if not (multi_hop is None or isinstance(multi_hop, bool)):
        raise InputError(
            f"multi_hop is {multi_hop!r}; pass True or False, or None to leave it to a max_missed"
        )


def _check_number(name: str, number: float | None, *, least: float, what: str) -> None:
    if number is not None and not (_is_finite(number) and number >= least):
        raise InputError(f"{name} is {number!r}; pass {what}, or None for no such limit")


def _is_finite(number: float) -> bool:
    """Whether it is a real number that a float can hold."""
    try:
        return _is(number, Real) and math.isfinite(number)
    except OverflowError:
        return False


def _check_choice(name: str, choice: str, choices: Sequence[str]) -> None:
    if choice not in choices:
        *others, last = map(repr, choices)
        raise InputError(f"{name} is {choice!r}; pass {', '.join(others)} or {last}")


def _is(value: object, kind: type) -> bool:
    """Whether `value` is a number of this kind; True and False are not numbers here."""
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept; see `AT2Pruner.prune`.

    Attributes:
        calibrated: Whether scores will be: without a limit they are held against a max_missed of
            `DEFAULT_MAX_MISSED`.
        prior_weights: What the head weights make of prior terms, by their kind.
        multi_hop_known: Whether they have multi-hop weights.

    Raises:
        InputError: As `check_limits`; or if something was asked for that the head weights lack.
    """

    top_k: int | None = None
    max_tokens: int | None = None
    min_score: float | None = None
    top_p: float | None = None
    max_missed: float | None = None
    skip_below_tokens: int | None = None
    order: Order = "score"
    unit: Unit = "chunk"
    protect: Protect | None = None
    max_overlap: float | None = DEFAULT_MAX_OVERLAP
    if_unanswerable: IfUnanswerable = "flag"
    prior: Prior | None = None
    multi_hop: bool | None = None
    calibrated: bool = False
    prior_weights: Mapping[Prior, float] = field(default_factory=dict)
    multi_hop_known: bool = False

    def __post_init__(self) -> None:
        if self.calibrated and not has_limit(self.of_selection):
            object.__setattr__(self, "max_missed", DEFAULT_MAX_MISSED)
        check_limits(
            skip_below_tokens=self.skip_below_tokens,
            unit=self.unit,
            protect=self.protect,
            max_overlap=self.max_overlap,
            if_unanswerable=self.if_unanswerable,
            prior=self.prior,
            multi_hop=self.multi_hop,
            **self.of_selection,
        )
        for name, needed in (
            ("max_missed", self.max_missed is not None),
            ("if_unanswerable", self.if_unanswerable in ("keep_best", "keep_none")),
        ):
            if needed and not self.calibrated:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, but the head weights aren't calibrated; "
                    "leave it out, or use weights that `at2-rag calibrate` wrote"
                )
        if self.prior is not None and self.prior not in self.prior_weights:
            learned = "cosine" if self.prior == "cosine" else "score"
            raise InputError(
                f"prior is {self.prior!r}, but the head weights have no weight for it; leave it "
                f"out, or use weights that `at2-rag calibrate --prior {learned}` wrote from "
                "examples whose chunks have a retrieval_score"
            )
        if self.multi_hop and not self.multi_hop_known:
            raise InputError(
                "multi_hop was asked for, but the head weights have no weights for it; leave it "
                "out, or use weights that `at2-rag calibrate --multi-hop` wrote"
            )

    @property
    def of_selection(self) -> dict[str, Any]:
        """The arguments of `selection.select`."""
        return {
            "top_k": self.top_k,
            "max_tokens": self.max_tokens,
            "min_score": self.min_score,
            "top_p": self.top_p,
            "max_missed": self.max_missed,
            "order": self.order,
        }
