"""The same items with their gold chunk elsewhere: does its position change the answer?

N. F. Liu et al., "Lost in the Middle: How Language Models Use Long Contexts", TACL 2024, move the
gold document through the context and find a U-shaped curve; here through five positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag_evals.items import count
from at2_rag_evals.qa.items import QASet

SHARES: Mapping[str, float] = MappingProxyType(
    {"first": 0.0, "quarter": 0.25, "middle": 0.5, "three-quarter": 0.75, "last": 1.0}
)
"""Positions by name, as shares of the way from the first chunk to the last."""

MIN_CHUNKS = len(SHARES)


def movable_items(items: QASet) -> QASet:
    """Keep the items with exactly one gold chunk among at least five; leave out and count others.

    Args:
        items: The items; their remarks are dropped.
    """
    kept = []
    left_out = {source: dict(reasons) for source, reasons in items.left_out.items()}
    for item in items.items:
        if sum(item.labels) != 1:
            count(left_out, item.source, "not exactly one gold chunk")
        elif len(item.chunks) < MIN_CHUNKS:
            count(left_out, item.source, f"fewer than {MIN_CHUNKS} chunks")
        else:
            kept.append(item)
    return QASet(tuple(kept), left_out, {})


def with_gold_at(item: Example, share: float) -> Example:
    """Return the item with its one gold chunk moved, the others in their order.

    Args:
        item: An item with exactly one gold chunk.
        share: Where to, from 0 for the first position to 1 for the last; rounded to the nearest
            position, halves up.
    """
    gold = item.labels.index(True)
    order = [index for index in range(len(item.chunks)) if index != gold]
    order.insert(int(share * len(order) + 0.5), gold)
    sentences = item.gold_sentences
    return replace(
        item,
        chunks=tuple(item.chunks[index] for index in order),
        labels=tuple(item.labels[index] for index in order),
        gold_sentences=tuple(sentences[index] for index in order) if sentences else (),
    )
