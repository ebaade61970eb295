"""Everything a caller may ask of a pruning: each option once, with its default, help and check.

Adapters and the command line are built from the fields of `PruneOptions`: a new option is one field
here, and one line in `SharedOverrides` for type checkers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, TypedDict, Union, get_args, get_origin, get_type_hints

from at2_rag.errors import InputError, brief
from at2_rag.text.chunks import Prior
from at2_rag.text.protection import Protect, check_protect

Order: TypeAlias = Literal["score", "best_last", "original"]
"""Order of the kept chunks: best first, best last, or as in the input."""

Unit: TypeAlias = Literal["chunk", "sentence"]
"""What the limits choose and count: whole chunks, or sentences (tables, lists, code as a whole)."""

IfUnanswerable: TypeAlias = Literal["flag", "keep_best", "keep_none"]
"""What to keep where probably no chunk holds the answer: as the limits say, the best, nothing."""

OnError: TypeAlias = Literal["raise", "keep_all"]
"""What to do if scoring fails."""

DEFAULT_TOP_K = 3
"""Chunks that adapters keep where no limit is set and scores aren't calibrated."""

DEFAULT_MIN_P, DEFAULT_AT_LEAST = 0.05, 0.35
"""`min_p` and `keep_at_least` of calibrated head weights where no limit is set."""

UNANSWERABLE_BELOW = 0.05
"""Probability that any chunk holds the answer below which a question counts as unanswerable."""

_Check: TypeAlias = Callable[[str, Any], None]


def _numeric(what: str, allows: Callable[[Any], bool]) -> _Check:
    """Return a check for finite numbers; True and False are none here."""

    def check(name: str, value: Any) -> None:
        try:
            usable = (
                isinstance(value, Real)
                and not isinstance(value, bool)
                and math.isfinite(value)
                and allows(value)
            )
        except OverflowError:  # an integer that no float holds
            usable = False
        if not usable:
            raise InputError(f"{name} is {brief(value)}; pass {what}, or None for no such limit")

    return check


_count = _numeric("an integer of at least 1", lambda n: n >= 1 and isinstance(n, Integral))
_number = _numeric("a finite number", lambda number: True)
_probability = _numeric("a number from 0 to 1", lambda number: 0 <= number <= 1)
_share = _numeric("a number above 0 and at most 1", lambda number: 0 < number <= 1)


def _protection(name: str, value: Any) -> None:
    check_protect(value)


def _one_of(alias: Any) -> _Check:
    def check(name: str, value: Any) -> None:
        if value not in get_args(alias):
            *others, last = map(repr, get_args(alias))
            raise InputError(f"{name} is {brief(value)}; pass {', '.join(others)} or {last}")

    return check


def _switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(
            f"{name} is {brief(value)}; pass True or False, or None to leave it to a max_missed"
        )


def _option(
    help: str,
    check: _Check,
    *,
    default: Any = None,
    limit: bool = False,
    required: bool = False,
) -> Any:
    """Declare an option, with what adapters and the command line say of it.

    `check` raises for a value, None aside, that can't be used; a `limit` bounds how much is kept;
    None isn't a value of what is `required`.
    """
    known = {"help": help, "check": check, "limit": limit, "required": required}
    return field(default=default, metadata=known)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """What a pruning keeps, and how; a pruner has defaults and each call may override them.

    All limits that are set must hold: `top_k`, `max_tokens`, `min_probability`, `min_score`,
    `top_p`, `min_p`, `max_missed`. At least one has to be set, unless the head weights are
    calibrated: without a limit they have a `min_p` of `DEFAULT_MIN_P` and a `keep_at_least` of
    `DEFAULT_AT_LEAST`.

    Attributes:
        top_k: Keep at most this many chunks (or sentences), at least 1.
        max_tokens: Keep what fits into this many tokens, titles and separators included. If the
            best chunk alone has more, it is trimmed to its best sentences.
        min_probability: Keep chunks (or sentences) with at least this probability of being
            relevant, in [0, 1]; needs calibrated head weights.
        min_score: Keep chunks (or sentences) with at least this raw score.
        top_p: Keep the fewest chunks (or sentences) that hold this share, in (0, 1], of the sum of
            all probabilities, or of the softmax over scores that aren't calibrated. That means
            little for scores on the "additive" scale; the result's notes say so.
        min_p: Keep chunks (or sentences) with at least this share, in (0, 1], of the best one's
            probability; needs calibrated head weights.
        max_missed: Keep the smallest set, at least one, expected to miss at most this share, in
            [0, 1], of the relevant chunks (or sentences); needs calibrated head weights.
        keep_at_least: With `min_p` or `max_missed` keep at least this share, in (0, 1], of the
            chunks (or sentences), the best ones; None for no such floor.
        skip_below_tokens: Keep a context of at most this many tokens as it is, unscored; of the
            limits only `max_tokens` holds then.
        order: "score" for best first, "best_last" for the reverse, "original" for the order of the
            input. Chunks that weren't scored stay in the order of the input.
        unit: What the limits choose and count: "chunk", or "sentence". Tables, lists and blocks of
            code count as one sentence; headings belong to what follows them. A chunk is trimmed to
            its kept sentences (`ScoredChunk.spans`), and dropped if none is kept.
        protect: Keep every chunk (or sentence) that this matches: a regular expression over the
            texts, a list of texts to be looked for as they are, or ranges of characters by chunk
            index. What is protected counts towards `max_tokens`, but not towards `top_k`.
        max_overlap: With 1 a chunk (or a sentence of eight words or more) is dropped only if it
            stands, word for word, in a better one that is kept. Below 1 near-duplicates are dropped
            as well: if at least this share, in (0, 1), of their runs of three words stands in
            better ones that are kept, between them, and all of their words do. None to keep
            duplicates.
        if_unanswerable: What to keep, besides what is protected, where `PruneResult.answerable` is
            below `UNANSWERABLE_BELOW`, so that hardly any chunk can hold the answer: "flag" for
            what the limits say, with a note, "keep_best" for the best one at most, "keep_none" for
            nothing. The last two need calibrated head weights.
        prior: Let the retriever weigh in, as the head weights learned to: the ranks by
            `retrieval_score` ("score"), the order of the chunks ("order"), or `retrieval_score` as
            a cosine of embeddings ("cosine").
        multi_hop: Read the question again beside the best chunk, for answers that take two chunks.
            None to do so only with `min_p` or `max_missed`, where the best chunk is relevant with a
            probability of at least .5, but alone misses more than `max_missed`, or .15.

    Raises:
        InputError: If a value can't be used.
    """

    top_k: int | None = _option("Keep at most this many chunks (or sentences).", _count, limit=True)
    max_tokens: int | None = _option("Keep what fits into this many tokens.", _count, limit=True)
    min_probability: float | None = _option(
        "Keep chunks (or sentences) that are relevant with at least this probability; needs "
        "calibrated head weights.",
        _probability,
        limit=True,
    )
    min_score: float | None = _option(
        "Keep chunks (or sentences) with at least this raw score.", _number, limit=True
    )
    top_p: float | None = _option(
        "Keep the fewest chunks (or sentences) that hold this share of the relevance.",
        _share,
        limit=True,
    )
    min_p: float | None = _option(
        "Keep chunks (or sentences) with at least this share of the best one's probability; needs "
        "calibrated head weights.",
        _share,
        limit=True,
    )
    max_missed: float | None = _option(
        "Keep the smallest set expected to miss at most this share of the relevant chunks (or "
        "sentences); needs calibrated head weights.",
        _probability,
        limit=True,
    )
    keep_at_least: float | None = _option(
        "With a limit by min_p or max_missed, or none, keep at least this share of the chunks (or "
        "sentences), the best ones.",
        _share,
    )
    skip_below_tokens: int | None = _option(
        "Keep a context of at most this many tokens as it is, without scoring.", _count
    )
    order: Order = _option(
        "Order of the kept chunks: best first, best last, or as in the input.",
        _one_of(Order),
        default="score",
        required=True,
    )
    unit: Unit = _option(
        "What the limits choose: chunks, or sentences (tables, lists and code as a whole).",
        _one_of(Unit),
        default="chunk",
        required=True,
    )
    protect: Protect | None = _option(
        "Keep every chunk (or sentence) that this regular expression matches.", _protection
    )
    max_overlap: float | None = _option(
        "Drop chunks (or sentences) that stand in a better one that is kept: word for word with 1, "
        "with less by this share of them.",
        _share,
        default=1.0,
    )
    if_unanswerable: IfUnanswerable = _option(
        "Where hardly any chunk can hold the answer: add a note, keep at most one chunk, or keep "
        "none; the last two need calibrated head weights.",
        _one_of(IfUnanswerable),
        default="flag",
        required=True,
    )
    prior: Prior | None = _option(
        "Let the retriever weigh in: its ranks by score, its order, or its scores as cosines.",
        _one_of(Prior),
    )
    multi_hop: bool | None = _option(
        "Read the question again beside the best chunk, for answers that take two.", _switch
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is not None or option.metadata["required"]:
                option.metadata["check"](option.name, value)

    @property
    def has_limit(self) -> bool:
        """Whether anything bounds how much is kept."""
        return any(getattr(self, name) is not None for name in LIMITS)

    def override(self, **overrides: Any) -> PruneOptions:
        """Return these options with some replaced.

        Raises:
            InputError: If a value can't be used.
            TypeError: If there is no option of a name.
        """
        names = [option.name for option in fields(self)]
        for name in overrides:
            if name not in names:
                raise TypeError(f"there is no option {name!r}; there are {', '.join(names)}")
        return replace(self, **overrides)


LIMITS = tuple(option.name for option in fields(PruneOptions) if option.metadata["limit"])
"""Names of the options that bound how much is kept."""


class SharedOverrides(TypedDict, total=False):
    """What options are called everywhere, for type checkers: all but `top_k`."""

    max_tokens: int | None
    min_probability: float | None
    min_score: float | None
    top_p: float | None
    min_p: float | None
    max_missed: float | None
    keep_at_least: float | None
    skip_below_tokens: int | None
    order: Order
    unit: Unit
    protect: Protect | None
    max_overlap: float | None
    if_unanswerable: IfUnanswerable
    prior: Prior | None
    multi_hop: bool | None


class PruneOverrides(SharedOverrides, total=False):
    """The fields of `PruneOptions` as keyword arguments, for type checkers."""

    top_k: int | None


class AdapterOverrides(SharedOverrides, total=False):
    """The same as adapters name them, for type checkers."""

    top_n: int | None


def plain_types(options: type[PruneOptions]) -> dict[str, tuple[Any, ...]]:
    """Return for each option the types of its values that fit into text or JSON.

    Of `protect`, for one, these are str and None: a regular expression, but no ranges.
    """
    types = {}
    for name, hint in get_type_hints(options).items():
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        types[name] = tuple(
            member for member in members if get_origin(member) is Literal or member in _PLAIN
        )
    return types


_PLAIN = (bool, int, float, str, NoneType)
