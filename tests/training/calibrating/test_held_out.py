"""Which questions a fit leaves to the calibration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from at2_rag.errors import InputError
from at2_rag.training.calibrating.held_out import hold_out
from tests.training.planted_examples import planted_examples

EXAMPLES = planted_examples(["novels", "seas"], 12)


def test_what_shares_a_passage_or_a_question_with_the_held_out_is_in_neither_part() -> None:
    examples = [replace(one, query=f"{one.query} {index}") for index, one in enumerate(EXAMPLES)]
    held_out, rest = hold_out(examples, 5)
    assert len(held_out) == 10 and len(rest) == 14
    assert {one.source for one in held_out[:5]} == {"novels"}
    assert not {one.query for one in held_out} & {one.query for one in rest}
    same_passage = replace(rest[0], id="a", chunks=held_out[0].chunks, labels=held_out[0].labels)
    same_question = replace(rest[1], id="b", query=held_out[1].query.upper())
    too_short = replace(rest[2], id="c", source="short", chunks=rest[2].chunks[:3])
    too_short = replace(too_short, labels=rest[2].labels[:3])
    _, kept = hold_out([*examples, too_short], 5)
    assert too_short in kept  # no ranking can be judged by it, but it can be fitted to
    drawn, left = hold_out([*examples, same_passage, same_question], 5)
    assert {one.id for one in drawn} | {one.id for one in left}
    for one in left:
        shared = {chunk.text for chunk in one.gold} & {c.text for h in drawn for c in h.gold}
        assert not shared and one.query.casefold() not in {h.query.casefold() for h in drawn}


def test_it_is_the_same_every_time_and_something_has_to_be_left() -> None:
    assert hold_out(EXAMPLES, 2) == hold_out(EXAMPLES, 2)
    with pytest.raises(InputError, match="24 would be, and 0 be left"):
        hold_out(EXAMPLES, 12)
    with pytest.raises(InputError, match="0 would be"):
        hold_out([replace(one, labels=(False,) * 5) for one in EXAMPLES], 2)
