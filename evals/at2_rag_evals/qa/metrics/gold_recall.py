"""How much of the evidence was kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def gold_recall(kept: Iterable[int], labels: Sequence[bool]) -> float | None:
    """Return the share of the gold chunks that are among the kept ones; None without gold.

    C. D. Manning, P. Raghavan and H. Schütze, "Introduction to Information Retrieval", 2008,
    section 8.3.

    Args:
        kept: Indices of the kept chunks.
        labels: For each chunk, whether it is gold.
    """
    gold = {index for index, label in enumerate(labels) if label}
    return len(gold.intersection(kept)) / len(gold) if gold else None
