"""Whether pruning paid: what scoring cost against what the generator was spared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakEven:
    """What one pruning cost and saved, at the rates that were stated.

    Attributes:
        tokens_saved: Context tokens that the generator doesn't have to read.
        seconds_spent: What pruning took, counting and selecting included.
        seconds_saved: What the generator would have taken to read those tokens; None where its
            speed wasn't stated.
        money_spent: What the scoring machine cost meanwhile; None where no price was stated.
        money_saved: What the generator would have charged for those tokens; None where no price
            was stated.
    """

    tokens_saved: int
    seconds_spent: float
    seconds_saved: float | None
    money_spent: float | None
    money_saved: float | None

    @property
    def seconds_gained(self) -> float | None:
        """Seconds saved less those spent, negative where pruning took longer than it saved."""
        return None if self.seconds_saved is None else self.seconds_saved - self.seconds_spent

    @property
    def money_gained(self) -> float | None:
        """Money saved less that spent, in the currency of the stated prices."""
        if self.money_saved is None:
            return None
        return self.money_saved - (self.money_spent or 0.0)
