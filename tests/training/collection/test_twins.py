"""Examples with and without their evidence."""

from __future__ import annotations

import dataclasses

import pytest

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.twins import LENGTH_TOLERANCE, TwinMaker, Twins


def words(number: int, name: str) -> str:
    return " ".join(f"{name}{index}" for index in range(number))


def make_example(id: str, lengths: str, *, gold: str, source: str = "novels") -> Example:
    """Make an example; lengths are in tens of words, one digit a chunk."""
    return Example(
        id=id,
        source=source,
        query=f"What is {id}?",
        chunks=tuple(
            Chunk(words(10 * int(length), f"{source}{id}x{index}y"))
            for index, length in enumerate(lengths)
        ),
        labels=tuple(mark == "g" for mark in gold),
        answers=("Jane Austen",),
        gold_sentences=((),) * len(lengths),
    )


EXAMPLES = [make_example(f"q{number}", "1234512345", gold="-g--g-----") for number in range(6)]


def made(example: Example, examples: list[Example], seed: int = 0) -> Twins:
    twins = TwinMaker(examples).twins(example, seed=seed)
    assert twins is not None
    return twins


def changed(example: Example, twin: Example) -> list[int]:
    pairs = zip(example.chunks, twin.chunks, strict=True)
    return [index for index, (one, other) in enumerate(pairs) if one is not other]


def test_twins_differ_from_the_example_in_as_many_chunks_of_equal_length() -> None:
    example = EXAMPLES[2]
    twins = made(example, EXAMPLES)
    assert changed(example, twins.unanswerable) == [1, 4]
    exchanged = changed(example, twins.answerable)
    assert len(exchanged) == 2 and not {1, 4} & set(exchanged)
    for twin in (twins.answerable, twins.unanswerable):
        for one, other in zip(example.chunks, twin.chunks, strict=True):
            length = len(one.text.split())
            assert abs(len(other.text.split()) - length) <= LENGTH_TOLERANCE * length
        assert len({chunk.text for chunk in twin.chunks}) == len(twin.chunks)
    assert twins.answerable.labels == example.labels
    assert not any(twins.unanswerable.labels) and twins.unanswerable.unanswerable
    assert twins.answerable.query == twins.unanswerable.query == example.query


def test_replacements_are_of_the_source_and_hold_no_answer() -> None:
    strangers = [make_example(f"s{n}", "1234512345", gold="g---------", source="x") for n in "ab"]
    telling = make_example("t", "1234512345", gold="g---------")
    telling = dataclasses.replace(
        telling,
        chunks=tuple(
            Chunk(f"{chunk.text} {'the Jane Austen' * (index % 2)}")
            for index, chunk in enumerate(telling.chunks)
        ),
    )
    example = EXAMPLES[0]
    answers = findable_answers(example.answers)
    seen = set()
    for seed in range(60):
        twins = made(example, [*EXAMPLES, *strangers, telling], seed)
        for twin in (twins.answerable, twins.unanswerable):
            for index in changed(example, twin):
                text = twin.chunks[index].text
                assert text.startswith("novels") and not contains_answer(normalise(text), answers)
                seen.add(text)
    assert any(text.startswith("novelst") for text in seen)


def test_twins_depend_on_seed_and_example_alone() -> None:
    example = EXAMPLES[1]
    assert made(example, EXAMPLES) == made(example, EXAMPLES)
    one, *others = (made(example, EXAMPLES, seed) for seed in range(8))
    assert any(other != one for other in others)


def with_first_chunk(text: str) -> Example:
    first, *others = EXAMPLES[0].chunks
    return dataclasses.replace(EXAMPLES[0], chunks=(Chunk(text, "Another"), *others))


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(make_example("few", "1234512345", gold="----------"), id="no gold"),
        pytest.param(make_example("few", "1234512345", gold="gggggg----"), id="more gold"),
        pytest.param(make_example("long", "1294512345", gold="--g-------"), id="no chunk as long"),
        pytest.param(with_first_chunk("jane AUSTEN, it is said"), id="answer in another chunk"),
        pytest.param(with_first_chunk(EXAMPLES[0].gold[0].text.upper()), id="gold elsewhere"),
    ],
)
def test_where_twins_would_differ_in_more_there_are_none(example: Example) -> None:
    assert TwinMaker([*EXAMPLES, example]).twins(example, seed=0) is None


def test_a_gold_passage_under_another_title_is_no_replacement() -> None:
    example = EXAMPLES[0]
    chunks = tuple(Chunk(chunk.text.upper(), title="Another") for chunk in example.gold)
    double = dataclasses.replace(example, id="double", chunks=chunks, labels=(False, False))
    assert TwinMaker([example, double]).twins(example, seed=0) is None
