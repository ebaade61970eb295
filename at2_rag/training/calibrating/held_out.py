"""Which questions are held out of a fit, to calibrate it."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.data.examples import Example, draw_per_source, linked_groups, passage_keys
from at2_rag.errors import InputError
from at2_rag.training.fitting.cross_validation import FEWEST_CHUNKS

SEED = 0  # one for all, so that what one command holds out another finds


def hold_out(examples: Sequence[Example], count: int) -> tuple[list[Example], list[Example]]:
    """Return at most `count` examples of each source to calibrate on, and those to fit to.

    Held out are examples with enough chunks, gold ones and others. What shares a gold passage or
    its question with one of them is in neither part.

    Raises:
        InputError: If nothing can be held out, or nothing is left.
    """
    usable = list(filter(is_usable, examples))
    held_out = draw_per_source(usable, count, seed=SEED) if usable else []
    groups = linked_groups([_keys(example) for example in [*held_out, *examples]])
    linked = set(groups[: len(held_out)])
    rest = [
        example
        for example, group in zip(examples, groups[len(held_out) :], strict=True)
        if group not in linked
    ]
    if not (held_out and rest):
        raise InputError(
            f"{count} questions of each source can't be held out of {len(examples)}: "
            f"{len(held_out)} would be, and {len(rest)} be left that share neither a gold passage "
            "nor their question with them; pass more examples, or hold out fewer"
        )
    return held_out, rest


def is_usable(example: Example) -> bool:
    """Tell whether an example can be calibrated on: it has enough chunks, gold ones and others."""
    labels = example.labels
    return len(labels) >= FEWEST_CHUNKS and any(labels) and not all(labels)


def _keys(example: Example) -> frozenset[str]:
    question = "question: " + " ".join(example.query.casefold().split())
    return passage_keys(example.gold) | {question}
