"""The beginning of an answer whose generator couldn't be told where to stop."""

from __future__ import annotations

import re
from collections.abc import Callable


def first_tokens(text: str, limit: int, count: Callable[[str], int]) -> str:
    """Return the longest beginning of whole words that has at most so many tokens.

    Args:
        text: The text.
        limit: Most tokens.
        count: Counts them; a longer beginning has no fewer.
    """
    if count(text) <= limit:
        return text
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    low, high = 0, len(ends)  # the first `low` words fit, `high` don't
    while high - low > 1:
        middle = (low + high) // 2
        if count(text[: ends[middle - 1]]) <= limit:
            low = middle
        else:
            high = middle
    return text[: ends[low - 1]] if low else ""
