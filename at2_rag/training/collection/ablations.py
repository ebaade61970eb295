"""Collects features and ablations of examples, shard by shard; needs neither labels nor answers.

Chunks are read once with all layers: the lower ones give the features, the whole stack carries
the masked answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.data.examples import Example
from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.attention import SpanAttention
from at2_rag.reading.chunk_states import ChunkState, canonical, encode_prefix, packs
from at2_rag.reading.features import PASSES, Pass
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.answering.ablation import Ablations, draw_masks, leave_one_out, read_states
from at2_rag.training.answering.answer_decoding import answer_over_states, question_end
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.features import content_hash, read_passes, stacked_features
from at2_rag.training.collection.shards import Sample, draw_samples, plan_shards
from at2_rag.training.collection.store import LEFT_OUT, ShardAblations, ShardStore, join_shards

FORMAT = 2

MOST_CHUNKS = 20
"""Most chunks of an example with added ones. Every chunk is one more mask, over more chunks."""

SHARD_TOKENS = 20_000
"""About how many tokens of different chunks a shard holds. Their states, all layers, are in
memory at once: about half a gigabyte with the default model."""

MASKS = 32
"""Random masks of a sample, besides leaving out each chunk in turn."""

ANSWER_TOKENS = 32
"""Most tokens of a generated answer."""


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """What is ablated.

    Attributes:
        masks: Random masks of each sample.
        answer_tokens: Most tokens of a generated answer.
        reference: Use each example's first reference answer instead of the model's own.
    """

    masks: int = MASKS
    answer_tokens: int = ANSWER_TOKENS
    reference: bool = False

    def __post_init__(self) -> None:
        if self.masks < 1 or self.answer_tokens < 1:
            raise InputError(
                f"masks is {self.masks} and answer_tokens {self.answer_tokens}; both are at least 1"
            )


def collect_ablations(
    model: ScoringModel,
    answer_model: AnswerModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    fingerprint: str,
    seed: int,
    plan: AblationPlan | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ShardAblations:
    """Return features and ablations of all examples, reading only shards that `folder` lacks.

    An example is left out, and counted, if it has fewer than two chunks, if question and answer
    exceed the model's window beside its longest chunk, or if it gets no answer.

    Args:
        model: The scoring model, cut to the deepest layer wanted.
        answer_model: The same model in full.
        examples: What to read; labels are not looked at, reference answers only if asked for.
        folder: Where shards are kept.
        fingerprint: The model's.
        seed: Of the added chunks and the masks.
        plan: What to ablate; None for `AblationPlan()`.
        workers: Threads that each read samples of their own.
        progress: Called with the number of samples done and in all, first with those that the
            folder held.

    Raises:
        DataError: If the folder holds a collection with other settings.
        InputError: If no example gives a sample.
        UnsupportedModelError: If the model's family can't read chunks independently.
        ScoringError: If the model's numbers overflowed.
    """
    plan = plan or AblationPlan()
    settings = ablation_settings(model, examples, fingerprint=fingerprint, seed=seed, plan=plan)
    store = ShardStore(folder, ShardAblations, settings=settings)
    reader = _AblationReader(model, answer_model, plan, seed)
    shards = plan_shards(examples, shard_tokens=SHARD_TOKENS)
    found = [store.read(index, shard) for index, shard in enumerate(shards)]
    total, collected = len(examples), []
    done = sum(len(shard) for shard, own in zip(shards, found, strict=True) if own is not None)
    progress(done, total)
    with ThreadPoolExecutor(workers) as executor:
        for index, (shard, arrays) in enumerate(zip(shards, found, strict=True)):
            if arrays is None:
                arrays = reader.read(examples, shard, executor)
                store.write(index, arrays)
                done += len(shard)
                progress(done, total)
            collected.append(arrays)
    joined = join_shards(collected)
    if not len(joined.examples):
        raise InputError(
            f"none of the {len(examples)} examples can be ablated ({describe_left_out(joined)}); "
            "pass examples with at least two chunks that fit the model's window"
        )
    return joined


def ablation_settings(
    model: ScoringModel,
    examples: Sequence[Example],
    *,
    fingerprint: str,
    seed: int,
    plan: AblationPlan,
) -> dict[str, object]:
    """Return all that decides collected ablations, JSON-ready; see `collect_ablations`."""
    return {
        "format": FORMAT,
        "signal": "ablation",
        "depth": model.depth,
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint,
        "template": model.prompts.template_hash,
        "seed": seed,
        "examples": content_hash(examples),
        "masks": plan.masks,
        "answers": "reference" if plan.reference else f"generated, {plan.answer_tokens} tokens",
    }


def describe_left_out(collected: ShardAblations) -> str:
    """Return in words how many examples were left out, and why; "" for none."""
    return ", ".join(f"{count} {why}" for why, count in count_left_out(collected).items())


def count_left_out(collected: ShardAblations) -> dict[str, int]:
    """Return how many examples were left out, by reason."""
    counts = collected.left_out.reshape(-1, len(LEFT_OUT)).sum(0).tolist()
    return {why: count for count, why in zip(counts, LEFT_OUT, strict=True) if count}


def drawn_samples(examples: Sequence[Example], shard: Sequence[int], *, seed: int) -> list[Sample]:
    """Return a shard's examples as they are ablated."""
    return draw_samples(examples, shard, seed=seed, most_chunks=MOST_CHUNKS, labelled=False)


class _AblationReader:
    def __init__(
        self, model: ScoringModel, answer_model: AnswerModel, plan: AblationPlan, seed: int
    ) -> None:
        model.check_independent()
        self._model, self._answer_model = model, answer_model
        self._prefix = encode_prefix(model)
        self._plan, self._seed = plan, seed

    def read(
        self, examples: Sequence[Example], shard: Sequence[int], workers: Executor
    ) -> ShardAblations:
        """Read one shard."""
        drawn = drawn_samples(examples, shard, seed=self._seed)
        laid_out = [(sample, self._layout(examples[sample.example], sample)) for sample in drawn]
        fitting = [(sample, layout) for sample, layout in laid_out if layout is not None]
        sources = {ids for _, layout in fitting for ids in layout.source_ids}
        states: dict[tuple[int, ...], ChunkState] = {}
        for encoded in workers.map(
            self._answer_model.encode, packs(sorted(sources, key=canonical))
        ):
            states.update(encoded)
        lower = {ids: state.first_layers(self._model.depth) for ids, state in states.items()}
        found = self._answers(examples, fitting, states, workers)
        given = [(*own, answer) for own, answer in zip(fitting, found, strict=True) if answer]
        answered = [own for own in given if self._holds(*own[1:])]

        def features(sample: Sample, layout: PromptLayout) -> Mapping[Pass, SpanAttention]:
            with torch.inference_mode():
                return read_passes(
                    self._model, self._prefix, layout, states=lower, chunks=len(sample.chunks)
                )

        def ablations(sample: Sample, layout: PromptLayout, answer: str) -> Ablations:
            masks = self._masks(sample)
            return read_states(
                self._answer_model, layout, answer, masks, states=states, question=True
            )

        samples = [sample for sample, _, _ in answered]
        layouts = [layout for _, layout, _ in answered]
        answers = [answer for _, _, answer in answered]
        read = list(workers.map(features, samples, layouts))
        ablated = list(workers.map(ablations, samples, layouts, answers))
        too_long = len(drawn) - len(fitting) + len(given) - len(answered)
        reasons = [len(shard) - len(drawn), too_long, len(fitting) - len(given)]
        shape = (0, len(PASSES["independent"]), self._model.depth, self._model.heads)
        nothing = np.zeros(shape, dtype=np.float16)
        stacked = (
            stacked_features(read, PASSES["independent"])
            if read
            else {"log_mass": nothing, "log_ratio": nothing.copy()}
        )
        return _to_shard(samples, answers, stacked, ablated, reasons)

    def _layout(self, example: Example, sample: Sample) -> PromptLayout | None:
        """Return a sample's prompt, None if there is no room for it and an answer."""
        room = self._model.prompts.max_tokens - self._plan.answer_tokens
        try:
            layout = self._model.prompts.independent(example.query, sample.chunks)
        except PromptTooLongError:
            return None
        if self._plan.reference and (answer := example.reference_answer):
            return layout if self._holds(layout, answer) else None
        return layout if question_end(self._answer_model, layout) <= room else None

    def _holds(self, layout: PromptLayout, answer: str) -> bool:
        """Tell whether the window holds an answer, whose text may be more tokens than it was."""
        try:
            self._model.prompts.answer(layout, answer)
        except PromptTooLongError:
            return False
        return True

    def _answers(
        self,
        examples: Sequence[Example],
        samples: Sequence[tuple[Sample, PromptLayout]],
        states: Mapping[tuple[int, ...], ChunkState],
        workers: Executor,
    ) -> list[str]:
        if self._plan.reference:
            return [examples[sample.example].reference_answer for sample, _ in samples]
        return answer_over_states(
            self._answer_model,
            [layout for _, layout in samples],
            states,
            max_new_tokens=self._plan.answer_tokens,
            workers=workers,
        )

    def _masks(self, sample: Sample) -> npt.NDArray[np.bool_]:
        chunks = len(sample.chunks)
        rng = np.random.default_rng([self._seed, sample.example, chunks])
        nothing = np.zeros((1, chunks), dtype=bool)
        random = draw_masks(chunks, self._plan.masks, rng)
        return np.concatenate([leave_one_out(chunks), nothing, random])


def _to_shard(
    samples: Sequence[Sample],
    answers: Sequence[str],
    features: Mapping[str, npt.NDArray[np.float16]],
    ablations: Sequence[Ablations],
    left_out: Sequence[int],
) -> ShardAblations:
    encoded = [answer.encode() for answer in answers]
    query_logits = [own.query_logits for own in ablations if own.query_logits is not None]
    return ShardAblations(
        examples=np.array([sample.example for sample in samples], dtype=np.int64),
        left_out=np.array(left_out, dtype=np.int64),
        answer_bytes=np.array([len(text) for text in encoded], dtype=np.int64),
        answers=np.frombuffer(b"".join(encoded), dtype=np.uint8).copy(),
        counts=np.array([len(sample.chunks) for sample in samples], dtype=np.int64),
        mask_counts=np.array([len(own.masks) for own in ablations], dtype=np.int64),
        masks=_joined([own.masks.ravel() for own in ablations], np.bool_),
        token_counts=np.array([own.token_logits.shape[1] for own in ablations], dtype=np.int64),
        token_logits=_joined([own.token_logits.ravel() for own in ablations], np.float32),
        query_counts=np.array([own.shape[1] for own in query_logits], dtype=np.int64),
        query_logits=_joined([own.ravel() for own in query_logits], np.float32),
        **features,
    )


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0), *parts]).astype(dtype)
