"""How much of the context a pruner may keep."""

from __future__ import annotations

from dataclasses import dataclass

from at2_rag.errors import InputError


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit: a number of chunks, or of tokens of the context they make.

    Attributes:
        top_k: Most chunks kept; None for a limit of tokens.
        max_tokens: Most tokens of the kept context (titles and separators included), by the
            generator's tokenizer; None for a limit of chunks.

    Raises:
        InputError: If not exactly one limit is set, or it is below 1.
    """

    top_k: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.top_k, self.max_tokens) if limit is not None]
        if len(limits) != 1 or limits[0] < 1:
            raise InputError(
                f"top_k is {self.top_k!r} and max_tokens {self.max_tokens!r}; a budget has exactly "
                "one of them, of at least 1"
            )

    @property
    def label(self) -> str:
        """What the report calls it: "top 3" or "256 tokens"."""
        return f"top {self.top_k}" if self.top_k is not None else f"{self.max_tokens} tokens"


def adaptive_name(max_missed: float | None, *, multi_hop: bool | None = None) -> str:
    """Return the name of at2_rag without a budget.

    Args:
        max_missed: Its `max_missed`; None for the default.
        multi_hop: Whether it reads the question again with the best chunk; None where the best
            chunk alone doesn't meet `max_missed`.
    """
    endings = {None: "", True: "_multi_hop", False: "_once"}
    name = f"at2_adaptive{endings[multi_hop]}"
    return name if max_missed is None else f"{name}_{max_missed:g}"
