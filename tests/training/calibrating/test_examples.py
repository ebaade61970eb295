"""Which examples a calibration is fitted to and judged by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from at2_rag.errors import InputError
from at2_rag.training.calibrating.examples import choose_examples
from tests.training.calibrating.equal_examples import equal_examples
from tests.training.planted_examples import planted_examples

NOVELS = equal_examples("novels", 6)
SHORT = planted_examples(["seas"], 3, chunks=3)


def test_examples_that_can_not_be_used_are_counted_and_every_second_comes_in_all_kinds() -> None:
    examples = choose_examples([*NOVELS, *SHORT], limit=4)
    assert len(examples.chosen) == 4 and examples.unusable == 3
    retrieved = [one.question for one in examples.lists if one.kind == "retrieved"]
    assert retrieved == [0, 1, 2, 3]
    assert {one.question for one in examples.lists if one.kind == "gold alone"} == {0, 2}
    for one in examples.lists:
        assert one.example.query == examples.chosen[one.question].query
    with pytest.raises(InputError, match="none of the 3 examples can be calibrated with"):
        choose_examples(SHORT)


def test_what_can_not_be_learned_of_them_is_refused() -> None:
    alike = [replace(NOVELS[0], id=str(number)) for number in range(3)]
    with pytest.raises(InputError, match="all 3 examples .* share gold passages"):
        choose_examples(alike)
    silent = [replace(example, answers=("nowhere to be found",)) for example in NOVELS]
    with pytest.raises(InputError, match="in no example is it known which sentences"):
        choose_examples(silent, sentences=True)
    chunks = tuple(replace(chunk, retrieval_score=20.0) for chunk in NOVELS[0].chunks)
    scored = [replace(NOVELS[0], chunks=chunks), *NOVELS[1:]]
    with pytest.raises(InputError, match="example '0' of novels: .* within -1 and 1"):
        choose_examples(scored, priors=["cosine"])
