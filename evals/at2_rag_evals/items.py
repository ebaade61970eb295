"""Which examples systems can be judged on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk

MIN_CHUNKS = 4
RANKABLE = "an item needs four chunks, gold and not gold"


@dataclass(frozen=True, slots=True)
class ItemSet:
    """A named set of examples, and source -> reason -> number of those left out."""

    name: str
    items: tuple[Example, ...]
    left_out: Mapping[str, Mapping[str, int]]


def rankable_items(examples: Iterable[Example], *, limit: int | None = None) -> ItemSet:
    """Keep the examples whose ranking can be judged.

    They have at least four chunks (of fewer, guessing does too well), a gold one (something to
    find) and a distractor (something to get wrong). Limit and errors as in `usable_examples`.
    """
    items, left_out = usable_examples(examples, _reason_to_leave_out, limit=limit)
    return ItemSet("natural size", items, left_out)


def usable_examples(
    examples: Iterable[Example],
    reason_to_leave_out: Callable[[Example], str | None],
    *,
    limit: int | None,
) -> tuple[tuple[Example, ...], dict[str, dict[str, int]]]:
    """Return the examples that can be used, and source -> reason -> number of those left out.

    At most `limit` of each source are used, the first ones.

    Raises:
        DataError: If two examples of a source have the same id.
    """
    seen: set[tuple[str, str]] = set()
    kept: Counter[str] = Counter()
    usable: list[Example] = []
    left_out: dict[str, dict[str, int]] = {}
    for example in examples:
        if (example.source, example.id) in seen:
            raise DataError(
                f"the id {example.id!r} of source {example.source!r} appears twice; "
                "pass each file once and give each item an id that no other has"
            )
        seen.add((example.source, example.id))
        reason = reason_to_leave_out(example)
        if reason is None and limit is not None and kept[example.source] >= limit:
            reason = f"beyond the first {limit}"
        if reason is None:
            kept[example.source] += 1
            usable.append(example)
        else:
            count(left_out, example.source, reason)
    return tuple(usable), left_out


def count(counts: dict[str, dict[str, int]], source: str, reason: str) -> None:
    """Add one to `counts[source][reason]`."""
    reasons = counts.setdefault(source, {})
    reasons[reason] = reasons.get(reason, 0) + 1


def none_usable(total: int, left_out: Mapping[str, Mapping[str, int]], needed: str) -> DataError:
    """Return the error that no item can be judged, and why; `needed` is what an item must have."""
    return DataError(
        f"none of the {total} items can be judged (left out: {json.dumps(left_out)}); {needed}"
    )


def content_hash(query: str, chunks: Sequence[Chunk]) -> str:
    """Return a SHA-256 over all that a system sees of an item, in order."""
    seen = [query, [[chunk.title, chunk.text] for chunk in chunks]]
    return hashlib.sha256(json.dumps(seen).encode("ascii")).hexdigest()


def _reason_to_leave_out(example: Example) -> str | None:
    if len(example.chunks) < MIN_CHUNKS:
        return f"fewer than {MIN_CHUNKS} chunks"
    if not any(example.labels):
        return "no gold chunk"
    if all(example.labels):
        return "no distractor"
    return None
