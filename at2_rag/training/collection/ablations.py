"""Collects features and ablations of examples; needs neither labels nor reference answers.

Chunks are read once with all layers: the lower ones give the features, the whole stack carries
the masked answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.data.examples import Example
from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import ChunkState, canonical, encode_prefix, packs
from at2_rag.reading.features import PASSES
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.answering.ablation import Ablations, draw_masks, leave_one_out, read_states
from at2_rag.training.answering.answer_decoding import answer_over_states, question_end
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.collection import TOO_LONG, Collection, Row
from at2_rag.training.collection.features import feature_arrays, read_passes
from at2_rag.training.collection.samples import FEW_CHUNKS, plan_samples, reading_settings

MOST_CHUNKS = 20
"""Most chunks of an example with added ones. Every chunk is one more mask, over more chunks."""

SHARD_TOKENS = 20_000
"""About how many tokens of different chunks a shard holds. Their states, all layers, are in
memory at once: about half a gigabyte with the default model."""

MASKS = 32
"""Random masks of a sample, besides leaving out each chunk in turn."""

ANSWER_TOKENS = 32
"""Most tokens of a generated answer."""

NO_ANSWER = "no answer"
"""Why an example gives no ablations."""


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """What is ablated.

    Attributes:
        masks: Random masks of each sample.
        answer_tokens: Most tokens of a generated answer.
        reference: Use each example's first reference answer instead of the model's.
    """

    masks: int = MASKS
    answer_tokens: int = ANSWER_TOKENS
    reference: bool = False

    def __post_init__(self) -> None:
        if self.masks < 1 or self.answer_tokens < 1:
            raise InputError(
                f"masks is {self.masks} and answer_tokens {self.answer_tokens}; both are at least 1"
            )


class AblationCollection(Collection):
    """Features and ablations of examples.

    A row of S chunks, M masks, an answer of A tokens and a question of Q has

    - `log_mass` and `log_ratio`, [S, P, L, H] float16, see `Features`;
    - `masks`, [M, S] bool: all kept, each left out in turn, all left out, then random ones;
    - `token_logits`, [M, A] float32, and `query_logits`, [M, Q] float32: the logit-probabilities
      of the answer's and the question's tokens under each mask;
    - `answer`, uint8: the answer in UTF-8.

    An example is left out if it has fewer than two chunks, if question and answer exceed the
    model's window beside its longest chunk, or if it gets no answer.

    Args:
        model: The scoring model, cut to the deepest layer wanted.
        answer_model: The same model in full.
        examples: What to read; labels are not looked at, reference answers only if the plan says.
        folder: Where shards are kept.
        fingerprint: The model's.
        seed: Of the added chunks and the masks.
        plan: What to ablate; None for `AblationPlan()`.

    Attributes:
        samples: What is read of each example that gives a sample, by the example's index.
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
        plan: AblationPlan | None = None,
    ) -> None:
        self._model, self._answer_model, self._examples = model, answer_model, examples
        self._plan, self._seed = plan or AblationPlan(), seed
        shards = plan_samples(
            examples, seed=seed, labelled=False, shard_tokens=SHARD_TOKENS, most_chunks=MOST_CHUNKS
        )
        self.samples = {sample.example: sample for shard in shards for sample in shard}
        generated = f"generated, {self._plan.answer_tokens} tokens"
        settings = {
            "signal": "ablation",
            "masks": self._plan.masks,
            "answers": "reference" if self._plan.reference else generated,
            "seed": seed,
            **reading_settings(model, fingerprint, examples),
        }
        undrawn = set(range(len(examples))) - set(self.samples)
        super().__init__(
            folder,
            settings,
            [[sample.example for sample in shard] for shard in shards],
            left_out=dict.fromkeys(sorted(undrawn), FEW_CHUNKS),
        )

    def read_shard(self, items: Sequence[int], executor: Executor) -> list[Row | str]:
        """Read one shard."""
        layouts = {item: layout for item in items if (layout := self._layout(item)) is not None}
        states = self._states(layouts.values(), executor)
        answers = self._answers(layouts, states, executor)
        readable = [
            item for item, answer in answers.items() if answer and self._fits(layouts[item], answer)
        ]
        prefix = self._prefix  # read here once, not by each worker
        lower = {ids: state.first_layers(self._model.depth) for ids, state in states.items()}

        def features(item: int) -> Row:
            layout, chunks = layouts[item], len(self.samples[item].chunks)
            with torch.inference_mode():
                attention = read_passes(self._model, prefix, layout, states=lower, chunks=chunks)
            return feature_arrays(attention, PASSES["independent"])

        def ablations(item: int) -> Row:
            read = read_states(
                self._answer_model,
                layouts[item],
                answers[item],
                self._masks(item),
                states=states,
                question=True,
            )
            return _arrays(read, answers[item])

        of_features = executor.map(features, readable)
        of_ablations = executor.map(ablations, readable)
        rows: dict[int, Row] = {
            item: {**one, **other}
            for item, one, other in zip(readable, of_features, of_ablations, strict=True)
        }
        return [
            rows.get(item, NO_ANSWER if answers.get(item) == "" else TOO_LONG) for item in items
        ]

    @cached_property
    def _prefix(self) -> ChunkState:
        self._model.check_independent()
        return encode_prefix(self._model)

    def _layout(self, item: int) -> PromptLayout | None:
        """Return a sample's prompt, None if there is no room for it and an answer."""
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
        """Tell whether the window holds an answer, whose text may be more tokens than it was."""
        try:
            self._model.prompts.answer(layout, answer)
        except PromptTooLongError:
            return False
        return True

    def _states(
        self, layouts: Iterable[PromptLayout], executor: Executor
    ) -> dict[tuple[int, ...], ChunkState]:
        sources = {ids for layout in layouts for ids in layout.source_ids}
        states: dict[tuple[int, ...], ChunkState] = {}
        for encoded in executor.map(
            self._answer_model.encode, packs(sorted(sources, key=canonical))
        ):
            states |= encoded
        return states

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

    def _masks(self, item: int) -> npt.NDArray[np.bool_]:
        chunks = len(self.samples[item].chunks)
        rng = np.random.default_rng([self._seed, item, chunks])
        nothing = np.zeros((1, chunks), dtype=bool)
        random = draw_masks(chunks, self._plan.masks, rng)
        return np.concatenate([leave_one_out(chunks), nothing, random])


def _arrays(ablations: Ablations, answer: str) -> Row:
    assert ablations.query_logits is not None  # the question was read
    return {
        "masks": ablations.masks,
        "token_logits": ablations.token_logits,
        "query_logits": ablations.query_logits,
        "answer": np.frombuffer(answer.encode(), dtype=np.uint8),
    }
