"""Collects the features of examples, shard by shard."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from at2_rag.data.examples import Example
from at2_rag.errors import InputError, PromptTooLongError, ScoringError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.attention import SpanAttention
from at2_rag.reading.chunk_states import ChunkState, canonical, encode_prefix, encode_sources, packs
from at2_rag.reading.features import PASSES, Pass, Reading, log_mass
from at2_rag.reading.independent import LayoutPasses, read_independent
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.shards import MOST_CHUNKS, Sample, draw_samples, plan_shards
from at2_rag.training.collection.store import ShardFeatures, ShardStore, join_shards

FORMAT = 1

JOINT_MOST_CHUNKS = 20
"""Most chunks of a sample in joint reading, where cost and window grow with their number."""


def collect(
    model: ScoringModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    reading: Reading,
    fingerprint: str,
    seed: int,
    padded: bool = True,
    passes: tuple[Pass, ...] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ShardFeatures:
    """Return the features of all examples, reading only the shards that `folder` doesn't hold.

    Examples that exceed the model's window are left out, see `fits_window`. In joint reading
    distractors are added only as long as the prompt fits.

    Args:
        model: The scoring model, cut to the deepest layer wanted.
        examples: What to read; see `plan_shards` and `draw_samples`.
        folder: Where shards are kept.
        reading: Decides the passes; all quantities of all its passes are collected.
        passes: The first passes of the reading if not all are wanted.
        fingerprint: The model's, so that features of different models are never mixed.
        seed: Of the added distractors.
        padded: Whether examples get distractors of others, see `draw_samples`; without, each is
            read with its own chunks.
        workers: Threads that each read samples of their own. One torch thread in each of as many
            workers as there are cores reads about twice as much as one worker with all of them.
        progress: Called with the number of samples done and in all, first with those that the
            folder held.

    Raises:
        DataError: If the folder holds a collection with other settings.
        InputError: If no example has both gold and other chunks and fits the model's window.
        ScoringError: If the model's numbers overflowed.
        StorageError: If a shard can't be written.
    """
    settings = feature_settings(
        model,
        examples,
        reading=reading,
        fingerprint=fingerprint,
        seed=seed,
        padded=padded,
        passes=passes,
    )
    wanted = PASSES[reading] if passes is None else passes
    store = ShardStore(folder, ShardFeatures, settings=settings)
    shards = plan_samples(examples, reading=reading, seed=seed, padded=padded)
    if not shards:
        raise InputError(
            f"none of the {len(examples)} examples has both gold and other chunks; pass examples "
            "with both, or more examples of a source, so that they serve each other as distractors"
        )
    shards = _within_window(model, examples, shards, reading)
    if not shards:
        raise InputError(
            f"none of the {len(examples)} examples fits the model's window of "
            f"{model.prompts.max_tokens} tokens; pass shorter questions"
            + (', fewer or shorter chunks, or use reading="independent"' * (reading == "joint"))
        )
    found = [
        store.read(index, [sample.example for sample in samples])
        for index, samples in enumerate(shards)
    ]
    total = sum(map(len, shards))
    done = sum(len(features.examples) for features in found if features is not None)
    progress(done, total)
    reader: _Reader
    if reading == "independent":
        reader = _IndependentReader(model, wanted)
    else:
        reader = _JointReader(model)
    collected = []
    with ThreadPoolExecutor(workers) as executor:
        for index, (samples, features) in enumerate(zip(shards, found, strict=True)):
            if features is None:
                read = []
                for attention in reader.read(samples, examples, executor):
                    read.append(attention)
                    progress(done + len(read), total)
                features = _to_shard(samples, read, wanted)
                store.write(index, features)
                done += len(samples)
            collected.append(features)
    return join_shards(collected)


def feature_settings(
    model: ScoringModel,
    examples: Sequence[Example],
    *,
    reading: Reading,
    fingerprint: str,
    seed: int,
    padded: bool = True,
    passes: tuple[Pass, ...] | None = None,
) -> dict[str, object]:
    """Return all that decides collected features, JSON-ready; see `collect`."""
    return {
        "format": FORMAT,
        "reading": reading,
        "depth": model.depth,
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint,
        "template": model.prompts.template_hash,
        "seed": seed,
        "examples": content_hash(examples),
        **({} if padded else {"padded": False}),
        **({} if passes is None else {"passes": list(passes)}),
    }


def plan_samples(
    examples: Sequence[Example], *, reading: Reading, seed: int, padded: bool = True
) -> list[list[Sample]]:
    """Return the samples of each shard as they are drawn; no shard is empty.

    `collect` reads of them what fits the model's window.
    """
    most = MOST_CHUNKS if reading == "independent" else JOINT_MOST_CHUNKS
    drawn = [
        draw_samples(examples, shard, seed=seed, most_chunks=most)
        if padded
        else [_as_it_is(examples, index) for index in shard]
        for shard in plan_shards(examples)
    ]
    return [samples for samples in drawn if samples]


def _as_it_is(examples: Sequence[Example], index: int) -> Sample:
    own = examples[index]
    return Sample(index, own.chunks, own.labels, own=len(own.chunks))


def fits_window(
    model: ScoringModel, query: str, chunks: Sequence[Chunk], *, reading: Reading
) -> bool:
    """Tell whether a prompt fits the model's window; independently read chunks always do."""
    try:
        if reading == "joint":
            model.prompts.joint(query, chunks)
        else:
            model.prompts.independent(query, ())
    except PromptTooLongError:
        return False
    return True


def _within_window(
    model: ScoringModel,
    examples: Sequence[Example],
    shards: Sequence[Sequence[Sample]],
    reading: Reading,
) -> list[list[Sample]]:
    """Return the samples that can be read, each with as many added chunks as fit."""
    kept = []
    for shard in shards:
        cut = [_cut(model, examples[sample.example], sample, reading) for sample in shard]
        if own := [sample for sample in cut if sample is not None]:
            kept.append(own)
    return kept


def _cut(model: ScoringModel, example: Example, sample: Sample, reading: Reading) -> Sample | None:
    """Return a sample without the added chunks that don't fit, None if nothing is left to rank."""
    sizes = range(sample.own, len(sample.chunks) + 1)

    def too_long(size: int) -> bool:
        return not fits_window(model, example.query, sample.chunks[:size], reading=reading)

    if not too_long(sizes[-1]):
        return sample
    size = sizes.start + bisect_left(sizes, True, key=too_long) - 1  # too long from one size on
    labels = sample.labels[:size]
    if size < sample.own or not any(labels) or all(labels):
        return None
    return replace(sample, chunks=sample.chunks[:size], labels=labels)


class _Reader(Protocol):
    def read(
        self, samples: Sequence[Sample], examples: Sequence[Example], workers: Executor
    ) -> Iterator[Mapping[Pass, SpanAttention]]:
        """Read the samples of one shard, in order."""


class _IndependentReader:
    """Reads every different source of a shard once, then each question over its own."""

    def __init__(self, model: ScoringModel, passes: Sequence[Pass]) -> None:
        model.check_independent()
        self._model, self._passes = model, passes
        self._prefix = encode_prefix(model)

    def read(
        self, samples: Sequence[Sample], examples: Sequence[Example], workers: Executor
    ) -> Iterator[Mapping[Pass, SpanAttention]]:
        """Read the samples of one shard, in order."""
        layouts = [
            self._model.prompts.independent(examples[sample.example].query, sample.chunks)
            for sample in samples
        ]
        sources = sorted({ids for layout in layouts for ids in layout.source_ids}, key=canonical)
        store: dict[str, ChunkState] = {}
        encode = partial(encode_sources, self._model, self._prefix, store=store)
        for _ in workers.map(encode, packs(sources)):
            pass
        yield from workers.map(partial(self._read_one, store), samples, layouts)

    def _read_one(
        self, store: dict[str, ChunkState], sample: Sample, layout: PromptLayout
    ) -> Mapping[Pass, SpanAttention]:
        with torch.inference_mode():
            sources = list(dict.fromkeys(layout.source_ids))
            states = encode_sources(self._model, self._prefix, sources, store=store)
            return read_passes(
                self._model,
                self._prefix,
                layout,
                self._passes,
                states=states,
                chunks=len(sample.chunks),
            )


class _JointReader:
    """Reads each sample as one prompt."""

    def __init__(self, model: ScoringModel) -> None:
        self._model = model

    def read(
        self, samples: Sequence[Sample], examples: Sequence[Example], workers: Executor
    ) -> Iterator[Mapping[Pass, SpanAttention]]:
        """Read the samples of one shard, in order."""

        def read_one(sample: Sample) -> Mapping[Pass, SpanAttention]:
            layout = self._model.prompts.joint(examples[sample.example].query, sample.chunks)
            return {"joint": self._model.read_joint([layout])[0]}

        yield from workers.map(read_one, samples)


def read_passes(
    model: ScoringModel,
    prefix: ChunkState,
    layout: PromptLayout,
    passes: Sequence[Pass] = PASSES["independent"],
    *,
    states: Mapping[tuple[int, ...], ChunkState],
    chunks: int,
) -> Mapping[Pass, SpanAttention]:
    """Return the attention of passes over the states of a layout's sources, by chunk."""
    owners = torch.tensor(layout.owners)
    attention: dict[Pass, SpanAttention] = {}
    for name in passes:  # a pass by itself, so that no other changes its rounding
        wanted = [LayoutPasses(layout, {name: None})]
        [read] = read_independent(model, prefix, wanted, states=states)
        attention[name] = _by_chunk(read[name], owners, chunks)
    return attention


def _by_chunk(attention: SpanAttention, owners: Tensor, chunks: int) -> SpanAttention:
    """Give a chunk that was read in several windows the features of its strongest window."""
    if len(owners) == chunks:
        return attention
    strongest = torch.empty(chunks, dtype=torch.int64)
    overall = attention.log_ratio.mean((0, 1))
    for chunk in range(chunks):
        windows = (owners == chunk).nonzero().flatten()
        strongest[chunk] = windows[overall[windows].argmax()]
    return SpanAttention(attention.mass[..., strongest], attention.log_ratio[..., strongest])


def _to_shard(
    samples: Sequence[Sample],
    features: Sequence[Mapping[Pass, SpanAttention]],
    passes: Sequence[Pass],
) -> ShardFeatures:
    return ShardFeatures(
        examples=np.array([sample.example for sample in samples], dtype=np.int64),
        counts=np.array([len(sample.chunks) for sample in samples], dtype=np.int64),
        labels=np.array([label for sample in samples for label in sample.labels]),
        **stacked_features(features, passes),
    )


def stacked_features(
    features: Sequence[Mapping[Pass, SpanAttention]], passes: Sequence[Pass]
) -> dict[str, npt.NDArray[np.float16]]:
    """Return `log_mass` and `log_ratio` as shards hold them, [sum of chunks, P, L, H] float16.

    Raises:
        ScoringError: If a number isn't finite.
    """

    def stacked(quantity: Callable[[SpanAttention], Tensor]) -> npt.NDArray[np.float16]:
        rows = [
            torch.stack([quantity(attention[name]) for name in passes]).permute(3, 0, 1, 2)
            for attention in features
        ]
        array: npt.NDArray[np.float16] = torch.cat(rows).half().cpu().numpy()
        if not np.isfinite(array).all():
            raise ScoringError(
                "the attention of the model holds NaN or infinity; load it in float32 or bfloat16"
            )
        return array

    return {
        "log_mass": stacked(lambda attention: log_mass(attention.mass)),
        "log_ratio": stacked(lambda attention: attention.log_ratio),
    }


def content_hash(examples: Sequence[Example]) -> str:
    """Return a SHA-256 over all that is read of examples."""
    digest = hashlib.sha256()
    for example in examples:
        fields = (example.source, example.id, example.query, example.labels, example.answers)
        chunks = [(chunk.title, chunk.text) for chunk in example.chunks]
        digest.update(json.dumps([fields, chunks]).encode())
    return digest.hexdigest()
