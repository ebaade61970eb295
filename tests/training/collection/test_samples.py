"""Shards cover every example once; added distractors never give the answer away."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.samples import (
    ECHO_SHARE,
    FEWEST_CHUNKS,
    MOST_CHUNKS,
    MOST_READ,
    PADDED_SHARE,
    Sample,
    doubtful_labels,
    draw_samples,
    plan_samples,
    plan_shards,
)

WORDS = ["river", "bridge", "novel", "harbour", "town", "sea", "mill", "glass", "owl", "lamp"]


def make_example(
    number: int,
    *,
    source: str = "a",
    chunks: int = 6,
    gold: tuple[int, ...] = (0,),
    answers: tuple[str, ...] = (),
    shared: tuple[Chunk, ...] = (),
) -> Example:
    """Make an example whose chunks are like no other's, but for the shared ones."""
    rng = random.Random(f"{source}{number}")
    unique = [
        Chunk(f"{source}{number}.{index} " + " ".join(rng.choices(WORDS, k=12)), title=f"t{number}")
        for index in range(chunks - len(shared))
    ]
    everything = (*unique, *shared)
    return Example(
        id=str(number),
        source=source,
        query=f"what is {number}?",
        chunks=everything,
        labels=tuple(index in gold for index in range(len(everything))),
        answers=answers,
    )


@pytest.mark.parametrize("shard_tokens", [1, 400, 200_000])
def test_every_example_is_in_exactly_one_shard_of_its_source(shard_tokens: int) -> None:
    examples = [make_example(number, source="abc"[number % 3]) for number in range(60)]
    shards = plan_shards(examples, shard_tokens=shard_tokens)
    assert sorted(index for shard in shards for index in shard) == list(range(60))
    for shard in shards:
        assert len({examples[index].source for index in shard}) == 1
        assert list(shard) == sorted(shard)


def test_examples_that_share_chunks_are_put_together() -> None:
    topics = [tuple(Chunk(f"topic {t} " + "word " * 40 + str(n)) for n in range(4)) for t in (0, 1)]
    examples = [make_example(number, shared=topics[number % 2]) for number in range(20)]
    first, *rest = plan_shards(examples, shard_tokens=450)
    assert len(first) > 3 and rest
    assert all(index % 2 == 0 for index in first)
    mixed = [shard for shard in (first, *rest) if len({index % 2 for index in shard}) == 2]
    assert len(mixed) <= 1
    other = [dataclasses.replace(one, query="else", id="x", answers=("y",)) for one in examples]
    assert plan_shards(other, shard_tokens=450) == [first, *rest]
    assert plan_shards([]) == []


EXAMPLES = [
    make_example(number, chunks=1 + number % 7, answers=(f"a{number}.0",)) for number in range(80)
]
SHARD = tuple(range(80))


def draw(seed: int = 0, **options: Any) -> list[Sample]:
    return draw_samples(EXAMPLES, SHARD, seed=seed, **options)


def test_a_sample_is_the_example_and_then_chunks_of_others_of_the_shard_none_twice() -> None:
    shard = tuple(range(0, 80, 2))
    pool = {chunk.rendered for index in shard for chunk in EXAMPLES[index].chunks}
    added = 0
    for sample in draw_samples(EXAMPLES, shard, seed=0):
        example, original = EXAMPLES[sample.example], sample.original
        assert sample.example in shard and original == len(example.chunks)
        assert sample.chunks[:original] == example.chunks
        assert sample.labels == (*example.labels, *[False] * (len(sample.chunks) - original))
        texts = [chunk.rendered for chunk in sample.chunks]
        of_others = [text for text in texts[original:] if text in pool]
        assert len(set(texts)) == len(texts)
        assert len(texts) - original - len(of_others) <= 1  # an echo
        added += len(of_others)
    assert added > 100


def test_some_labelled_samples_have_an_echo_without_the_question() -> None:
    examples = [make_example(number, chunks=4) for number in range(400)]
    pool = {chunk.text for example in examples for chunk in example.chunks}
    echoes = []
    for sample in draw_samples(examples, range(400), seed=1):
        of_none = [chunk.text for chunk in sample.chunks if chunk.text not in pool]
        echoes.append(len(of_none))
        assert not any(examples[sample.example].query in text for text in of_none)
        assert not any(sample.labels[sample.original :])
    assert set(echoes) == {0, 1} and np.mean(echoes) == pytest.approx(ECHO_SHARE, abs=0.06)
    unlabelled = draw_samples(examples, range(400), seed=1, labelled=False)
    assert {chunk.text for sample in unlabelled for chunk in sample.chunks} <= pool


def test_sizes_are_within_their_range() -> None:
    sizes = Counter[str]()
    every = {chunk.rendered for example in EXAMPLES for chunk in example.chunks}
    for sample in draw():
        size = sum(chunk.rendered in every for chunk in sample.chunks)  # without an echo
        if size == sample.original:
            sizes["as it was"] += 1
            continue
        assert FEWEST_CHUNKS <= size <= MOST_CHUNKS
        sizes["few" if size < 16 else "many"] += 1
    assert sizes["few"] > 3 and sizes["many"] > 3 and sizes["as it was"] > 20
    assert max(len(sample.chunks) for sample in draw(most_chunks=9)) <= 9 + 1
    examples = [make_example(number, chunks=4) for number in range(400)]
    samples = draw_samples(examples, range(400), seed=1)
    share = sum(len(sample.chunks) > sample.original + 1 for sample in samples) / len(samples)
    # A sample of the share may be drawn no larger than it is: log(5..50) hardly ever is below 5.
    assert share == pytest.approx(PADDED_SHARE, abs=0.08)


def test_gold_alone_gets_distractors_or_is_dropped() -> None:
    alone = [make_example(number, chunks=1) for number in range(30)]
    assert all(len(sample.chunks) > 1 for sample in draw_samples(alone, range(30), seed=1))
    assert draw_samples(alone, (0,), seed=0) == []
    no_gold = make_example(1, chunks=2, gold=())
    samples = draw_samples([alone[0], no_gold], (0, 1), seed=0)
    assert [sample.example for sample in samples] == [0]
    [unpadded] = plan_samples(alone, seed=3, padded=False)
    assert [len(sample.chunks) for sample in unpadded] == [1] * 30


def test_no_distractor_holds_an_answer_or_equals_a_chunk_of_the_example() -> None:
    spoilers = tuple(
        Chunk(text) for text in ("It was Jane AUSTEN, of course.", "The jane Austen house.")
    )
    harmless = tuple(Chunk(text) for text in ("Janes Austens", "Jane of Austen", "yes it is"))
    asking = make_example(0, chunks=1, answers=("The Jane Austen", "yes", ""))
    copies = tuple(dataclasses.replace(chunk, id="copy") for chunk in asking.chunks)
    gold = asking.chunks[0].text
    shouted, retitled = Chunk(gold.upper(), title="T0!"), Chunk(f"  {gold.upper()}", title="B")
    wrong, harmless = (*spoilers, *copies, shouted, retitled), (*harmless, Chunk(f"{gold} more"))
    others = [make_example(number, chunks=12, shared=(*wrong, *harmless)) for number in (1, 2)]
    seen = set()
    for seed in range(60):
        sample, *_ = draw_samples([asking, *others], (0, 1, 2), seed=seed)
        seen |= {chunk.text for chunk in sample.chunks[1:]}
    assert seen.isdisjoint(chunk.text for chunk in wrong)
    assert {chunk.text for chunk in harmless} <= seen


def test_what_is_drawn_depends_on_seed_and_id_alone() -> None:
    assert draw() == draw()
    assert draw(seed=1) != draw()
    moved = [EXAMPLES[0], *EXAMPLES]
    later = draw_samples(moved, range(1, 81), seed=0)
    assert [dataclasses.replace(s, example=s.example - 1) for s in later] == draw()
    renamed = [
        dataclasses.replace(EXAMPLES[3], id="other") if i == 3 else e
        for i, e in enumerate(EXAMPLES)
    ]
    before, after = draw(), draw_samples(renamed, SHARD, seed=0)
    differing = {one.example for one, other in zip(before, after, strict=True) if one != other}
    assert differing <= {3}


def test_added_chunks_that_hold_an_answer_or_a_gold_text_have_no_label() -> None:
    telling = Chunk("by jane AUSTEN, 1815")
    gold = Chunk(f" {make_example(0).chunks[0].text.upper()}", title="B")  # of the first example
    examples = [
        make_example(number, chunks=3, answers=("The Jane Austen", "yes"), shared=(chunk,))
        for number, chunk in enumerate([telling, Chunk("Janes Austens"), Chunk("yes"), gold])
    ]
    samples = draw_samples(examples, range(4), seed=0, labelled=False, most_chunks=20)
    assert any(sample.example == 0 and gold in sample.chunks for sample in samples)
    seen = set()
    for sample in samples:
        marks = doubtful_labels(examples[sample.example], sample)
        for number, (chunk, mark) in enumerate(zip(sample.chunks, marks, strict=True)):
            added = number >= sample.original
            expected = chunk == telling or (chunk == gold and sample.example == 0)
            assert mark == (added and expected)
            seen.add((added, mark))
    assert {(True, True), (True, False)} <= seen


@pytest.mark.parametrize(("chunks", "gold"), [(17, (0, 9)), (60, (5, 6, 59)), (40, range(20))])
def test_of_many_chunks_all_gold_ones_and_some_others_are_read(
    chunks: int, gold: Sequence[int]
) -> None:
    example = make_example(0, chunks=chunks, gold=tuple(gold))
    alone = make_example(1, chunks=2)
    wanted = [chunk for chunk, label in zip(example.chunks, example.labels, strict=True) if label]
    others: set[int] = set()
    for seed in range(20):
        sample = draw_samples([example, alone], (0, 1), seed=seed)[0]
        kept = [example.chunks.index(chunk) for chunk in sample.chunks[: sample.original]]
        assert kept == sorted(set(kept))
        assert len(kept) == sample.original == max(MOST_READ, len(wanted) + 1)
        assert sample.labels[: sample.original] == tuple(example.labels[i] for i in kept)
        assert [example.chunks[i] for i in kept if example.labels[i]] == wanted
        assert not set(example.chunks) & set(sample.chunks[sample.original :])
        others |= {i for i in kept if not example.labels[i]}
    assert len(others) > max(1, MOST_READ - len(wanted)), "others by another seed"


def test_of_sixteen_chunks_and_without_labels_all_are_read() -> None:
    example = make_example(0, chunks=MOST_READ)
    [sample] = draw_samples([example], (0,), seed=0)
    assert sample.chunks == example.chunks
    many = make_example(0, chunks=60)
    [sample] = draw_samples([many], (0,), seed=0, labelled=False)
    assert sample.chunks == many.chunks
    [[sample]] = plan_samples([many], seed=0, padded=False)
    assert sample.chunks == many.chunks


def test_what_a_teacher_alone_has_scored_is_read_as_it_is() -> None:
    blind, scores = make_example(0, chunks=30, gold=()), tuple(float(n % 7) for n in range(30))
    scored = dataclasses.replace(blind, teacher_scores=scores)
    alike = dataclasses.replace(make_example(1, gold=()), teacher_scores=(2.0,) * 5 + (None,))
    gold = make_example(2, chunks=40, gold=(3, 5))
    both = dataclasses.replace(gold, teacher_scores=tuple(map(float, range(40))))
    examples = [scored, alike, both]
    [teaching, labelled] = draw_samples(examples, range(3), seed=0, taught=True)
    assert teaching == Sample(0, scored.chunks, (False,) * 30, 30, scores)
    plain = draw_samples([blind, alike, gold], range(3), seed=0)
    assert [sample.example for sample in plain] == [2]
    assert dataclasses.replace(labelled, teacher_scores=()) == plain[0], "as without a teacher"
    kept = labelled.chunks[: labelled.original]
    assert labelled.teacher_scores == tuple(float(gold.chunks.index(chunk)) for chunk in kept)
    [[unpadded]] = plan_samples([both], seed=0, padded=False)
    assert unpadded.teacher_scores == both.teacher_scores
