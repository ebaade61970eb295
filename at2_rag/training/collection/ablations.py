"""Collects features and ablations of examples; needs neither labels nor reference answers.

Chunks are read once with all layers: the lower ones give the features, the whole stack carries
the masked answers. For weights that attribute answers, each ablated answer is read once more after
its joint prompt, as `AT2Attributor` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from at2_rag.data.examples import Example
from at2_rag.errors import PromptTooLongError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import ChunkState, canonical, packs
from at2_rag.reading.features import PASSES, as_log
from at2_rag.reading.independent import IndependentReader
from at2_rag.reading.joint import read_answer
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.answering.ablation import ablate_by_masking, draw_masks, leave_one_out
from at2_rag.training.answering.answer_decoding import answer_over_states, question_end
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.collection import TOO_LONG, Collection, Row, split_evenly
from at2_rag.training.collection.features import SampleCollection, feature_array, read_passes
from at2_rag.training.collection.samples import FEW_CHUNKS, plan_samples

MOST_CHUNKS = 20
"""Most chunks of an example with added ones. Every chunk is one more mask, over more chunks."""

SHARD_TOKENS = 20_000
"""About how many tokens of different chunks a shard holds. Their states, all layers, are in
memory at once: about half a gigabyte with the default model."""

NO_ANSWER = "no answer"  # why an example gives no ablations
ANSWERS_FOLDER = "answers"  # of features of answers, within the folder of the ablations
SHARD_ANSWERS = 25


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """What is ablated."""

    masks: int = 32  # random masks of each sample, besides leaving out each chunk in turn
    answer_tokens: int = 32  # most tokens of a generated answer
    reference: bool = False  # use each example's first reference answer instead of the model's


class AblationCollection(SampleCollection):
    """Features and ablations of examples.

    A row of S chunks, M masks, an answer of A tokens and a question of Q has

    - `log`, [S, P, L, H] float16, see `Features`;
    - `masks`, [M, S] bool: all kept, each left out in turn, all left out, then random ones;
    - `token_logits`, [M, A] float32, and `query_logits`, [M, Q] float32: the logit-probabilities
      of the answer's and the question's tokens under each mask;
    - `answer`, uint8: the answer in UTF-8.

    An example is left out if it has fewer than two chunks, if question and answer exceed the
    model's window beside its longest chunk, or if it gets no answer. Labels are not looked at,
    reference answers only if the plan says so. `model` is cut to the deepest layer wanted,
    `answer_model` is the same in full; `seed` is of the added chunks and the masks.
    """

    remedy = "pass examples with at least two chunks that fit the model's window"

    def __init__(
        self,
        model: ScoringModel,
        answer_model: AnswerModel,
        examples: Sequence[Example],
        folder: str | Path,
        *,
        fingerprint: str,
        seed: int,
        plan: AblationPlan,
    ) -> None:
        self._answer_model, self._plan, self._seed = answer_model, plan, seed
        shards = plan_samples(
            examples, seed=seed, labelled=False, shard_tokens=SHARD_TOKENS, most_chunks=MOST_CHUNKS
        )
        settings = {
            "signal": "ablation",
            "masks": plan.masks,
            "answers": "reference" if plan.reference else f"generated, {plan.answer_tokens} tokens",
            "seed": seed,
        }
        super().__init__(
            model, examples, folder, shards, settings, fingerprint=fingerprint, no_sample=FEW_CHUNKS
        )

    passes = PASSES["independent"]

    def read_shard(self, items: Sequence[int], executor: Executor) -> list[Row | str]:
        """Read one shard."""
        layouts = {item: layout for item in items if (layout := self._layout(item)) is not None}
        sources = {ids for layout in layouts.values() for ids in layout.source_ids}
        states: dict[tuple[int, ...], ChunkState] = {}
        for encoded in executor.map(
            self._answer_model.encode, packs(sorted(sources, key=canonical))
        ):
            states |= encoded
        answers = self._answers(layouts, states, executor)
        readable = [
            item for item, answer in answers.items() if answer and self._fits(layouts[item], answer)
        ]
        reader = IndependentReader(self._model)
        lower = {ids: state.first_layers(self._model.depth) for ids, state in states.items()}

        def features(item: int) -> Row:
            layout, chunks = layouts[item], len(self.samples[item].chunks)
            return {"log": read_passes(reader, layout, states=lower, chunks=chunks)}

        def ablations(item: int) -> Row:
            layout, answer, chunks = layouts[item], answers[item], len(self.samples[item].chunks)
            rng = np.random.default_rng([self._seed, item, chunks])
            random = draw_masks(chunks, self._plan.masks, rng)
            nothing = np.zeros((1, chunks), dtype=bool)
            masks = np.concatenate([leave_one_out(chunks), nothing, random])
            read = ablate_by_masking(
                self._answer_model, layout, answer, masks, states=states, question=True
            )
            assert read.query_logits is not None  # the question was read
            return {
                "masks": masks,
                "token_logits": read.token_logits,
                "query_logits": read.query_logits,
                "answer": np.frombuffer(answer.encode(), dtype=np.uint8),
            }

        read = zip(executor.map(features, readable), executor.map(ablations, readable), strict=True)
        rows = {item: {**one, **other} for item, (one, other) in zip(readable, read, strict=True)}
        return [
            rows.get(item, NO_ANSWER if answers.get(item) == "" else TOO_LONG) for item in items
        ]

    def _layout(self, item: int) -> PromptLayout | None:
        """Return a sample's prompt; None if the window has no room for it and an answer."""
        example = self._examples[item]
        try:
            layout = self._model.prompts.independent(example.query, self.samples[item].chunks)
        except PromptTooLongError:
            return None
        if self._plan.reference and (answer := example.reference_answer):
            return layout if self._fits(layout, answer) else None
        room = self._model.prompts.max_tokens - self._plan.answer_tokens
        return layout if question_end(self._answer_model, layout) <= room else None

    def _fits(self, layout: PromptLayout, answer: str) -> bool:
        """Return whether the window holds an answer, whose text may be more tokens than it was."""
        try:
            self._model.prompts.answer(layout, answer)
        except PromptTooLongError:
            return False
        return True

    def _answers(
        self,
        layouts: Mapping[int, PromptLayout],
        states: Mapping[tuple[int, ...], ChunkState],
        executor: Executor,
    ) -> dict[int, str]:
        if self._plan.reference:
            return {item: self._examples[item].reference_answer for item in layouts}
        answers = answer_over_states(
            self._answer_model,
            list(layouts.values()),
            states,
            max_new_tokens=self._plan.answer_tokens,
            workers=executor,
        )
        return dict(zip(layouts, answers, strict=True))


class AnswerFeatureCollection(Collection):
    """Features of ablated answers; a row has `log`, [S, 1, L, H] float16.

    Samples whose prompt and answer exceed the model's window are left out. `ablated` is what
    `ablations` collected, or nothing to check the folder only.
    """

    remedy = "pass examples with fewer or shorter chunks"

    def __init__(
        self,
        model: ScoringModel,
        examples: Sequence[Example],
        ablations: AblationCollection,
        ablated: Mapping[int, Row],
    ) -> None:
        self._model, self._examples = model, examples
        self._samples, self._ablated = ablations.samples, ablated
        settings = {"depth": model.depth, "ablations": ablations.identity}
        shards = split_evenly(list(ablated), SHARD_ANSWERS)
        super().__init__(ablations.folder / ANSWERS_FOLDER, settings, shards)

    def read(self, item: int) -> Row | str:
        """Read one answer."""
        answer = self._ablated[item]["answer"].tobytes().decode()
        query, chunks = self._examples[item].query, self._samples[item].chunks
        try:
            layout = self._model.prompts.conversation(query, chunks, answer)
        except PromptTooLongError:
            return TOO_LONG
        whole = (0, len(layout.answer_ids))
        [attention] = read_answer(self._model, layout, [whole], layout.prompt.source_spans)
        return {"log": feature_array([as_log("joint", attention)])}
