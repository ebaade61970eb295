"""Groups of items that may differ in how hard they are to answer from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from at2_rag.data.examples import Example

POSITIONS = ("first", "first half", "second half", "last", "several gold chunks", "no gold chunk")
DISTRACTORS: Mapping[str, int] = MappingProxyType(
    {"0": 0, "1-4": 4, "5-9": 9, "10-19": 19, "20-49": 49, ">49": sys.maxsize}
)


def position_group(item: Example) -> str:
    """Return the position of an item's gold chunk, one of `POSITIONS`.

    The chunk in the very middle counts as in the first half; an only chunk is first.
    """
    gold = sum(item.labels)
    if gold != 1:
        return POSITIONS[4] if gold else POSITIONS[5]
    index, last = item.labels.index(True), len(item.labels) - 1
    if index in (0, last):
        return POSITIONS[0] if index == 0 else POSITIONS[3]
    return POSITIONS[1] if 2 * index <= last else POSITIONS[2]


def distractor_group(item: Example) -> str:
    """Return the range, one of `DISTRACTORS`, of an item's number of chunks that aren't gold."""
    number = len(item.labels) - sum(item.labels)
    return next(name for name, most in DISTRACTORS.items() if number <= most)
