"""Splits examples into shards whose chunks overlap, and gives each example more distractors.

A shard is the unit of work and of resumption. Retrieved chunks repeat: examples that share chunks
are put into one shard, where each chunk is read once, and the shard's other chunks serve as
further distractors at no cost but the question's.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example, passage_keys
from at2_rag.text.chunks import Chunk

SHARD_TOKENS = 200_000
"""About how many tokens of different chunks a shard holds; decides the memory it needs."""

FEWEST_CHUNKS, MOST_CHUNKS = 5, 50
"""Range of the number of chunks that an example with added distractors has."""

PADDED_SHARE = 0.35
"""Share of examples that get more distractors; those without any always do."""

_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """An example as it is read for training: its chunks and distractors from others.

    Attributes:
        example: Index of the example in the caller's list.
        chunks: The example's own chunks in their order, then the added ones.
        labels: For each chunk, whether it is gold.
        own: How many of the chunks are the example's own.
    """

    example: int
    chunks: tuple[Chunk, ...]
    labels: tuple[bool, ...]
    own: int


def plan_shards(
    examples: Sequence[Example], *, shard_tokens: int = SHARD_TOKENS
) -> list[tuple[int, ...]]:
    """Return the indices of each shard's examples, all of one source; depends on nothing else.

    Greedy: a shard starts with the first example left and takes in the one that shares the
    largest part of its text with the shard, until the shard's different chunks are about
    `shard_tokens` long.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        by_source[example.source].append(index)
    return [
        shard for indices in by_source.values() for shard in _plan(examples, indices, shard_tokens)
    ]


def _plan(
    examples: Sequence[Example], indices: Sequence[int], shard_tokens: int
) -> list[tuple[int, ...]]:
    texts = {i: frozenset(chunk.rendered for chunk in examples[i].chunks) for i in indices}
    sizes = {i: max(1, sum(map(len, texts[i]))) for i in indices}
    having: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        for text in texts[index]:
            having[text].append(index)
    left = dict.fromkeys(indices)
    shards = []
    while left:
        shard: list[int] = []
        held: set[str] = set()
        shared: Counter[int] = Counter()
        size = 0
        while left and size < shard_tokens * _CHARACTERS_A_TOKEN:
            index = (
                max(shared, key=lambda i: (shared[i] / sizes[i], -i))
                if shared
                else next(iter(left))
            )
            del left[index]
            del shared[index]
            shard.append(index)
            for text in texts[index] - held:
                held.add(text)
                size += len(text)
                for other in having[text]:
                    if other in left:
                        shared[other] += len(text)
        shards.append(tuple(sorted(shard)))
    return shards


def draw_samples(
    examples: Sequence[Example],
    shard: Sequence[int],
    *,
    seed: int,
    most_chunks: int = MOST_CHUNKS,
    labelled: bool = True,
) -> list[Sample]:
    """Return the shard's examples, a seeded part of them with added distractors.

    An added chunk is a distractor or gold chunk of another example of the shard, equals none of
    the example's own, has no gold chunk's text under another title and contains none of the
    answers. What an example gets depends on the
    shard, the seed and the example's id alone. Examples left with gold chunks only are dropped.

    With `labelled=False` neither labels nor answers are looked at: examples with fewer than
    `FEWEST_CHUNKS` chunks and a part of the others get more, and those left with fewer than two
    are dropped.
    """
    pool = {normalise(chunk.rendered): chunk for index in shard for chunk in examples[index].chunks}
    texts = list(pool)
    samples = []
    for index in shard:
        example = examples[index]
        name = f"{example.source}/{example.id}".encode(errors="surrogatepass")
        rng = np.random.default_rng([seed, zlib.crc32(name)])
        size = len(example.chunks)
        lacking = all(example.labels) if labelled else size < FEWEST_CHUNKS
        if lacking or rng.random() < PADDED_SHARE:
            drawn = math.exp(rng.uniform(math.log(FEWEST_CHUNKS), math.log(most_chunks)))
            size = max(size, round(drawn))
        own = {normalise(chunk.rendered) for chunk in example.chunks}
        answers = findable_answers(example.answers if labelled else ())
        gold = passage_keys(example.gold) if labelled else frozenset()
        added: list[Chunk] = []
        for place in rng.permutation(len(texts)) if size > len(example.chunks) else ():
            if len(example.chunks) + len(added) == size:
                break
            chunk = pool[texts[place]]
            known = texts[place] in own or not gold.isdisjoint(passage_keys([chunk]))
            if not known and not contains_answer(texts[place], answers):
                added.append(chunk)
        labels = (*example.labels, *[False] * len(added))
        if any(labels) and not all(labels) if labelled else len(labels) >= 2:
            samples.append(
                Sample(index, (*example.chunks, *added), labels, own=len(example.chunks))
            )
    return samples


def unlabelled_chunks(example: Example, sample: Sample) -> tuple[bool, ...]:
    """Return for each chunk of a sample whether its label is a guess.

    So it is for added chunks that hold one of the example's reference answers, or a gold chunk's
    text under another title, which `draw_samples` adds where it looks at neither answers nor
    labels: each may be evidence, or not.
    """
    answers, gold = findable_answers(example.answers), passage_keys(example.gold)
    return tuple(
        place >= sample.own
        and (
            contains_answer(normalise(chunk.rendered), answers)
            or not gold.isdisjoint(passage_keys([chunk]))
        )
        for place, chunk in enumerate(sample.chunks)
    )
