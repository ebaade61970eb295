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
    """A prompt's answer.

    Attributes:
        text: The answer, without control tokens and the space around it; may be empty.
        prompt_tokens: Tokens of the prompt, template included where the generator says so.
        new_tokens: Tokens of the answer.
        seconds: How long it took; a batch's time is shared out evenly.
        prefill_seconds: The part until the first token; None where it isn't known apart.
        decode_seconds: The part after the first token; None where it isn't known apart.
        attempts: How often the prompt was sent.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    seconds: float
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prompt has no answer, in a sentence; the next run tries again."""

    reason: str


class Generator(Protocol):
    """Answers prompts, greedily where it can.

    Attributes:
        name: What the report calls the generator.
        settings: All that decides an answer besides the prompt, as JSON-ready values.
    """

    name: str
    settings: Mapping[str, object]

    def count(self, text: str) -> int:
        """Return the tokens of a text by the generator's tokenizer."""
        ...

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield each prompt's index and answer as it is made, in any order.

        Raises:
            GenerationError: If there is no use in going on.
        """
        ...
