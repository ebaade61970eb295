"""How much of the context a pruner may keep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit: a number of chunks, or of tokens of the context they make.

    Attributes:
        top_k: Most chunks kept; None for a limit of tokens.
        max_tokens: Most tokens of the kept context (titles and separators included), by the
            generator's tokenizer; None for a limit of chunks.
    """

    top_k: int | None = None
    max_tokens: int | None = None

    @property
    def label(self) -> str:
        """What the report calls it: "top 3" or "256 tokens"."""
        return f"top {self.top_k}" if self.top_k is not None else f"{self.max_tokens} tokens"


def adaptive_name(max_missed: float | None, *, multi_hop: bool | None = None) -> str:
    """Return the name of at2_rag without a budget, by its options of these names."""
    endings = {None: "", True: "_multi_hop", False: "_once"}
    name = f"at2_adaptive{endings[multi_hop]}"
    return name if max_missed is None else f"{name}_{max_missed:g}"
