"""What a report says to somebody who reads one paragraph of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """A report's answer to its own question.

    Attributes:
        answer: "Yes", "No", "Can't tell", "No verdict", or how much.
        reasons: Sentences; the first goes on after the answer and a colon.
        rule: How the answer follows from the figures, in a line; "" where it says that itself.
        setting: Label of the setting that is recommended; None where none is.
        figures: Figures to look at, each with what it is.
    """

    question: str
    answer: str
    reasons: tuple[str, ...]
    rule: str = ""
    setting: str | None = None
    figures: tuple[tuple[str, str], ...] = ()

    @property
    def statement(self) -> str:
        """The answer with its reasons, as one paragraph."""
        return f"{self.answer}: {' '.join(self.reasons)}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)
