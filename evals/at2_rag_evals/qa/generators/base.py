"""What a generator has to offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from at2_rag.errors import AT2Error


class GenerationError(AT2Error, RuntimeError):
    """A generator can't answer at all; what it answered before is stored."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt's answer, without control tokens and the space around it; may be empty.

    A batch's time is shared out evenly; None where the time until the first token, and after it,
    isn't known apart.
    """

    text: str
    prompt_tokens: int  # template included where the generator says so
    new_tokens: int
    seconds: float
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    attempts: int = 1  # how often the prompt was sent


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prompt has no answer, in a sentence; the next run tries again."""

    reason: str


class Generator(Protocol):
    """Answers prompts, greedily where it can."""

    name: str  # what the report calls it
    settings: Mapping[str, object]  # JSON-ready: what decides an answer besides the prompt

    def count(self, text: str) -> int:
        """Return the tokens of a text by the generator's tokenizer."""
        ...

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield each prompt's index and answer as it is made, in any order.

        Raises:
            GenerationError: If there is no use in going on.
        """
        ...
