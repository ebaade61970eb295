"""Which examples answers can be judged on, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from at2_rag.data.answers import normalise
from at2_rag.data.examples import Example
from at2_rag_evals.items import count, usable_examples

Kind = Literal["short", "long_form", "unanswerable"]


@dataclass(frozen=True, slots=True)
class QASet:
    """Examples to answer, how many were left out, and what is odd about the others.

    Attributes:
        items: The examples, in the files' order.
        left_out: Source -> reason -> number of examples left out for it.
        remarks: Source -> oddity -> number of items that have it and are judged all the same.
    """

    items: tuple[Example, ...]
    left_out: Mapping[str, Mapping[str, int]]
    remarks: Mapping[str, Mapping[str, int]]


def answerable_items(examples: Iterable[Example], *, limit: int | None = None) -> QASet:
    """Keep the examples that can be answered and judged, at most `limit` of each source.

    Left out and counted are examples without chunks, and those without a reference answer unless
    they are marked unanswerable. Oddities are counted as remarks.

    Raises:
        DataError: If two examples of a source have the same id.
    """
    items, left_out = usable_examples(examples, _reason_to_leave_out, limit=limit)
    remarks: dict[str, dict[str, int]] = {}
    for item in items:
        oddities = {
            "no gold": not any(item.labels),
            "one chunk": len(item.chunks) == 1,
            "gold alone": len(item.chunks) > 1 and all(item.labels),
            "a blank chunk": any(not chunk.rendered.strip() for chunk in item.chunks),
            "unanswerable with gold": item.unanswerable and any(item.labels),
        }
        for remark, applies in oddities.items():
            if applies:
                count(remarks, item.source, remark)
    return QASet(items, left_out, remarks)


def kind_of(example: Example) -> Kind:
    """Return how an item is judged: by containment, by token F1, or by whether it declines."""
    if example.unanswerable:
        return "unanswerable"
    return "long_form" if example.long_form else "short"


def _reason_to_leave_out(example: Example) -> str | None:
    if not example.chunks:
        return "no chunks"
    if not example.unanswerable and not any(map(normalise, example.answers)):
        return "no answers"
    return None
