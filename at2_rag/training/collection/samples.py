"""What is read of examples for training: their chunks, and for a part of them more distractors.

Examples that share chunks are put into one shard, where each chunk is read once; the shard's other
chunks serve as further distractors at no cost but the question's.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example, passage_keys
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.text.echo import without_echoes
from at2_rag.training.collection.echoes import echo_of

SHARD_TOKENS = 200_000  # about how many of different chunks a shard holds; decides its memory
FEWEST_CHUNKS, MOST_CHUNKS = 5, 50  # of an example with added distractors
MOST_READ = 12  # chunks of an example that are read: its gold chunks, and others drawn at random
PADDED_SHARE = 0.35  # of examples that get more distractors; those without any always do
ECHO_SHARE = 0.25  # of labelled examples that get a chunk that repeats their question

ONE_KIND = "without both gold and other chunks"  # why an example gives no labelled sample
NOT_TAUGHT = "without a teacher's scores that differ, or both gold and other chunks"
FEW_CHUNKS = "fewer than two chunks"  # why it gives no sample without labels

_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """An example as it is read for training: its chunks, then distractors from others."""

    example: int  # index in the caller's list
    chunks: tuple[Chunk, ...]
    labels: tuple[bool, ...]  # for each chunk, whether it is gold
    original: int  # how many of the chunks, from the first, are the example's
    teacher_scores: tuple[float | None, ...] = ()  # of the example's chunks, if it has any


def plan_samples(
    examples: Sequence[Example],
    *,
    seed: int,
    labelled: bool = True,
    taught: bool = False,
    padded: bool = True,
    shard_tokens: int = SHARD_TOKENS,
    most_chunks: int = MOST_CHUNKS,
) -> list[list[Sample]]:
    """Return the samples of each shard, see `plan_shards` and `draw_samples`.

    Examples that give none are missing. Without `padded` every example is read as it is.
    """
    shards = []
    for indices in plan_shards(examples, shard_tokens=shard_tokens):
        if padded:
            samples = draw_samples(
                examples,
                indices,
                seed=seed,
                labelled=labelled,
                taught=taught,
                most_chunks=most_chunks,
            )
        else:
            samples = [_unchanged(index, examples[index]) for index in indices]
        if samples:
            shards.append(samples)
    return shards


def plan_shards(
    examples: Sequence[Example], *, shard_tokens: int = SHARD_TOKENS
) -> list[tuple[int, ...]]:
    """Return the indices of each shard's examples, all of one source; depends on nothing else.

    Greedy: a shard starts with the first example left and takes in the one that shares the
    largest part of its text with the shard, until the shard's different chunks are about
    `shard_tokens` long.
    """
    texts = [frozenset(chunk.rendered for chunk in example.chunks) for example in examples]
    sizes = [max(1, sum(map(len, of_example))) for of_example in texts]
    by_source: dict[str, dict[int, None]] = defaultdict(dict)
    having: dict[tuple[str, str], list[int]] = defaultdict(list)  # by source and text
    for index, example in enumerate(examples):
        by_source[example.source][index] = None
        for text in texts[index]:
            having[example.source, text].append(index)
    shards = []
    for source, left in by_source.items():
        while left:
            shard: list[int] = []
            held: set[str] = set()
            shared: Counter[int] = Counter()
            size = 0
            while left and size < shard_tokens * _CHARACTERS_A_TOKEN:
                if shared:
                    index = max(shared, key=lambda i: (shared[i] / sizes[i], -i))
                else:
                    index = next(iter(left))
                del left[index]
                del shared[index]
                shard.append(index)
                for text in texts[index] - held:
                    held.add(text)
                    size += len(text)
                    for other in having[source, text]:
                        if other in left:
                            shared[other] += len(text)
            shards.append(tuple(sorted(shard)))
    return shards


def draw_samples(
    examples: Sequence[Example],
    shard: Sequence[int],
    *,
    seed: int,
    labelled: bool = True,
    taught: bool = False,
    most_chunks: int = MOST_CHUNKS,
) -> list[Sample]:
    """Return the shard's examples, a random part of them with added distractors.

    An added chunk is a chunk of another example of the shard, gold there or not. It equals none of
    the example's chunks, has no gold chunk's text under another title and contains none of the
    answers. What an example gets depends on the shard, the seed and the example's id alone.
    Examples left with gold chunks only are dropped; of one with many chunks `MOST_READ` are read.
    A part of them get an echo of their question, too, and echoes are blanked as in a pruner. With
    `taught` an example without a gold chunk is read as it is, if its teacher tells its chunks
    apart: the teacher has no score of an added chunk.

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
        if taught and is_taught(example):
            plain = tuple(without_echoes(example.query, example.chunks))
            samples.append(_unchanged(index, replace(example, chunks=plain)))
            continue
        kept = list(range(len(example.chunks)))
        if labelled and len(kept) > MOST_READ:
            kept = _some_chunks(example, rng)
        chunks, labels = [example.chunks[i] for i in kept], [example.labels[i] for i in kept]
        size = len(chunks)
        lacking = all(labels) if labelled else size < FEWEST_CHUNKS
        if lacking or rng.random() < PADDED_SHARE:
            drawn = math.exp(rng.uniform(math.log(FEWEST_CHUNKS), math.log(most_chunks)))
            size = max(size, round(drawn))
        present = {normalise(chunk.rendered) for chunk in example.chunks}
        is_evidence = evidence_test(example) if labelled else None
        added: list[Chunk] = []
        for number in rng.permutation(len(texts)) if size > len(chunks) else ():
            if len(chunks) + len(added) == size:
                break
            text, chunk = texts[number], pool[texts[number]]
            if text not in present and not (is_evidence and is_evidence(text, chunk)):
                added.append(chunk)
        every = (*labels, *[False] * len(added))
        if not (any(every) and not all(every) if labelled else len(every) >= 2):
            continue
        read = (*chunks, *added)
        if labelled:
            read = _with_echo(example.query, read, rng)
            every = (*every, *[False] * (len(read) - len(every)))
        scores = [example.teacher_scores[i] for i in kept] if example.teacher_scores else []
        samples.append(Sample(index, read, every, len(chunks), tuple(scores)))
    return samples


def _with_echo(
    query: str, chunks: tuple[Chunk, ...], rng: np.random.Generator
) -> tuple[Chunk, ...]:
    """Return chunks and maybe an echo of the question, all as a pruner reads them."""
    if rng.random() < ECHO_SHARE:
        chunks = (*chunks, echo_of(query, rng))
    return tuple(without_echoes(query, chunks))


def has_ranking(example: Example) -> bool:
    """Return whether its teacher tells some of the chunks apart."""
    return len(set(example.teacher_scores) - {None}) > 1


def is_taught(example: Example) -> bool:
    """Return whether only its teacher tells the chunks apart."""
    return has_ranking(example) and not any(example.labels)


def _unchanged(index: int, example: Example) -> Sample:
    chunks, labels = example.chunks, example.labels
    return Sample(index, chunks, labels, len(chunks), example.teacher_scores)


def _some_chunks(example: Example, rng: np.random.Generator) -> list[int]:
    """Return the indices of `MOST_READ` chunks, all gold ones and another among them, in order.

    They are more only where there are as many gold ones.
    """
    gold = np.array(example.labels)
    others = rng.permutation(np.flatnonzero(~gold))[: max(1, MOST_READ - int(gold.sum()))]
    kept: list[int] = np.sort(np.concatenate([np.flatnonzero(gold), others])).tolist()
    return kept


def evidence_test(example: Example) -> Callable[[str, Chunk], bool]:
    """Return a test of a chunk, by its normalised text: is it evidence for the example's question?

    It is if it holds one of the reference answers (a yes or no can't be looked for), or has a gold
    chunk's text, maybe under another title.
    """
    answers, passages = findable_answers(example.answers), passage_keys(example.gold)

    def test(text: str, chunk: Chunk) -> bool:
        return contains_answer(text, answers) or not passages.isdisjoint(passage_keys([chunk]))

    return test


def doubtful_labels(example: Example, sample: Sample) -> list[bool]:
    """Return for each chunk of a sample whether its label is a guess.

    Added chunks count as not gold. That is a guess where one is evidence, see `evidence_test`;
    `draw_samples` adds such chunks where it looks at neither answers nor labels.
    """
    test = evidence_test(example)
    added = sample.chunks[sample.original :]
    doubtful = [test(normalise(chunk.rendered), chunk) for chunk in added]
    return [*[False] * sample.original, *doubtful]


def reading_settings(
    model: ScoringModel, fingerprint: str, examples: Sequence[Example]
) -> dict[str, object]:
    """Return what decides all that is read of examples with a model, JSON-ready."""
    return {
        "depth": model.depth,
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint,
        "template": model.prompts.template_hash("independent"),
        "examples": content_hash(examples),
    }


def content_hash(examples: Sequence[Example]) -> str:
    """Return a SHA-256 over all that is read of examples."""
    digest = hashlib.sha256()
    for example in examples:
        fields = (example.source, example.id, example.query, example.labels, example.answers)
        chunks = [(chunk.title, chunk.text) for chunk in example.chunks]
        digest.update(json.dumps([fields, chunks]).encode())
    return digest.hexdigest()
