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
    """Examples to answer, how many were left out, and what is odd about those that weren't.

    Attributes:
        items: The examples, in the files' order.
        left_out: Source -> reason -> number of examples left out for it.
        remarks: Source -> oddity -> number of items that have it and are judged all the same.
    """

    items: tuple[Example, ...]
    left_out: Mapping[str, Mapping[str, int]]
    remarks: Mapping[str, Mapping[str, int]]


def answerable_items(examples: Iterable[Example], *, limit: int | None = None) -> QASet:
    """Keep the examples that can be answered and judged.

    Left out, and counted under the first reason that applies: no chunks (nothing to prune), no
    reference answer that isn't blank once normalised, unless the question is marked unanswerable
    (nothing to judge by). Items without gold, with one chunk, with gold chunks alone or with a
    blank chunk are kept and counted as remarks.

    Args:
        examples: The files' examples.
        limit: Keep at most this many items of each source, the first ones; counted as left out.

    Raises:
        DataError: If two examples of a source have the same id.
    """
    items, left_out = usable_examples(examples, _reason_to_leave_out, limit=limit)
    remarks: dict[str, dict[str, int]] = {}
    for item in items:
        for remark in _remarks(item):
            count(remarks, item.source, remark)
    return QASet(items, left_out, remarks)


def kind_of(example: Example) -> Kind:
    """Return how an item is judged.

    `unanswerable` by whether the answer declines, `long_form` by token F1, all others by
    containment.
    """
    if example.unanswerable:
        return "unanswerable"
    return "long_form" if example.long_form else "short"


def _reason_to_leave_out(example: Example) -> str | None:
    if not example.chunks:
        return "no chunks"
    if not example.unanswerable and not any(map(normalise, example.answers)):
        return "no answers"
    return None


def _remarks(example: Example) -> list[str]:
    remarks = {
        "no gold": not any(example.labels),
        "one chunk": len(example.chunks) == 1,
        "gold alone": len(example.chunks) > 1 and all(example.labels),
        "a blank chunk": any(not chunk.rendered.strip() for chunk in example.chunks),
        "unanswerable with gold": example.unanswerable and any(example.labels),
    }
    return [remark for remark, applies in remarks.items() if applies]
