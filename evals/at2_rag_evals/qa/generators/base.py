"""What a generator has to offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
        attempts: How often the generator was asked.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    seconds: float
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    attempts: int = 1

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Answer:
        """Return the answer that `asdict` made this record of.

        Raises:
            KeyError: If a value is missing.
            TypeError: If a value isn't of its type.
            ValueError: If a number isn't one.
        """
        if not isinstance(record["text"], str):
            raise TypeError(f"text is a {type(record['text']).__name__}; expected a string")
        apart = [record["prefill_seconds"], record["decode_seconds"]]
        prefill, decode = (None if value is None else float(value) for value in apart)
        return cls(
            text=record["text"],
            prompt_tokens=int(record["prompt_tokens"]),
            new_tokens=int(record["new_tokens"]),
            seconds=float(record["seconds"]),
            prefill_seconds=prefill,
            decode_seconds=decode,
            attempts=int(record["attempts"]),
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prompt has no answer; it is asked again by the next run.

    Attributes:
        reason: One sentence.
    """

    reason: str


class Generator(Protocol):
    """Answers prompts, greedily where it can be told to."""

    @property
    def name(self) -> str:
        """What the report calls the generator."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """All that decides an answer besides the prompt, as JSON-ready values.

        Stored answers are found again by these.
        """
        ...

    def count(self, text: str) -> int:
        """Return the tokens of a text by the generator's tokenizer."""
        ...

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield each prompt's place and answer as it is made, in any order.

        Raises:
            GenerationError: If there is no use in going on.
        """
        ...
