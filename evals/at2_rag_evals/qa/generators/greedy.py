"""Greedy answers in the making."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor


class GreedyAnswers:
    """New tokens of prompts that are answered together; an end token is an answer's last.

    Args:
        number: How many prompts.
        end_ids: Tokens that end an answer.

    Attributes:
        tokens: Each prompt's new tokens.
    """

    def __init__(self, number: int, end_ids: Collection[int]) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(number)]
        self._end_ids = end_ids

    @property
    def going(self) -> list[int]:
        """The prompts whose answers haven't ended."""
        return [place for place, own in enumerate(self.tokens) if not self._ended(own)]

    def take(self, logits: Tensor, places: Collection[int]) -> Tensor:
        """Give prompts their likeliest next token, but for those whose answers have ended.

        Args:
            logits: [B, V], the next tokens' logits.
            places: The B prompts they are of.

        Returns:
            [B] int64, the likeliest tokens.
        """
        likeliest = logits.argmax(dim=-1)
        for place, token in zip(places, likeliest.tolist(), strict=True):
            if not self._ended(self.tokens[place]):
                self.tokens[place].append(token)
        return likeliest

    def _ended(self, tokens: list[int]) -> bool:
        return bool(tokens) and tokens[-1] in self._end_ids
