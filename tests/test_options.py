"""Options: every value is checked where it is set, and a call overrides the pruner's defaults."""

from __future__ import annotations

import math
from typing import Any

import pytest

from at2_rag import InputError, PruneOptions
from at2_rag.options import LIMITS


def test_limits() -> None:
    assert not PruneOptions(order="original", skip_below_tokens=5).has_limit
    values: Any = [{name: 1} for name in LIMITS]
    assert all(PruneOptions(**value).has_limit for value in values)


def test_an_override_replaces_a_default_and_nothing_else() -> None:
    options = PruneOptions(top_k=5, order="original")
    assert options.override(top_k=3) == PruneOptions(top_k=3, order="original")
    assert options.override(top_k=None) == PruneOptions(order="original")
    with pytest.raises(TypeError, match="there is no option 'top'"):
        options.override(top=1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"top_k": 0}, "top_k is 0; pass an integer of at least 1"),
        ({"top_k": True}, "top_k is True"),
        ({"max_tokens": 99.5}, "max_tokens is 99.5"),
        ({"skip_below_tokens": "3"}, "skip_below_tokens is '3'"),
        ({"min_probability": 1.01}, "min_probability is 1.01; pass a number from 0 to 1"),
        ({"min_probability": math.nan}, "min_probability is nan"),
        ({"min_score": -math.inf}, "min_score is -inf; pass a finite number"),
        ({"min_score": 10**400}, "min_score is 1000.*; pass a finite number"),
        ({"top_p": 0}, "top_p is 0; pass a number above 0 and at most 1"),
        ({"top_p": True}, "top_p is True"),
        ({"max_missed": 1.1}, "max_missed is 1.1; pass a number from 0 to 1"),
        ({"min_p": 0}, "min_p is 0; pass a number above 0 and at most 1"),
        ({"keep_at_least": 3}, "keep_at_least is 3; pass a number above 0 and at most 1"),
        ({"max_overlap": 1.5}, "max_overlap is 1.5"),
        ({"order": "random"}, "order is 'random'; pass 'score', 'best_last' or 'original'"),
        ({"order": None}, "order is None"),
        ({"unit": "word"}, "unit is 'word'; pass 'chunk' or 'sentence'"),
        ({"if_unanswerable": None}, "if_unanswerable is None"),
        ({"prior": "rank"}, "prior is 'rank'; pass 'score', 'order' or 'cosine'"),
        ({"multi_hop": 1}, "multi_hop is 1; pass True or False"),
        ({"protect": "("}, "protect is no regular expression"),
    ],
)
def test_a_value_that_can_not_be_used_is_named_with_the_fix(
    option: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PruneOptions(**option)
