"""What is timed: the unit, whole `prune` calls, and what one would use instead."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from models import JOINT, PRESETS, make_pruner, prompt_builder
from prompts import Prompt
from reference_at2 import ReferenceAT2
from timing import Case

from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache
from at2_rag.training.answering.ablation import ablate_by_removal, draw_masks
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag_evals.rankers.minilm import MiniLMRanker

UNIT = "full forward pass (the unit)"
COLD, WARM, DISK = "cold", "warm", "from disk"
MINILM_COLD, MINILM_WARM = "MiniLM, cold", "MiniLM, warm"
REMOVALS = "32 removals"
REFERENCE = "reference AT2, answer generated"

ANSWER_TOKENS = 32
"""Most tokens of an answer, ours and the reference's."""

MASKS, KEEP_RATE = 32, 0.5  # as ContextCite takes them
MASK_BATCHES = (1, 4, 8)  # masks read at a time; the fastest is timed
_EMBEDDED_AT_ONCE = 32  # the default of sentence-transformers


def forward_case(model: LoadedModel, prompts: Sequence[Prompt]) -> Case:
    """Return the unit: a full forward pass over question and chunks as one prompt."""
    layouts = prompt_builder(model)
    inputs = [torch.tensor([layouts.joint(p.query, p.chunks).input_ids]) for p in prompts]

    def run(index: int) -> None:
        with torch.inference_mode():
            model.model(input_ids=inputs[index], use_cache=False, logits_to_keep=1)

    return run


def prune_case(pruner: AT2Pruner, prompts: Sequence[Prompt]) -> Case:
    """Return whole `prune` calls, which report their stages."""

    def run(index: int) -> Mapping[str, float]:
        return pruner.prune(prompts[index].query, prompts[index].chunks, top_k=3).timings

    return run


def prune_cases(model: LoadedModel, prompts: Sequence[Prompt], folder: Path) -> dict[str, Case]:
    """Return `prune` in joint reading, and of each preset cold, warm and from disk.

    Args:
        model: The model.
        prompts: The prompts.
        folder: Where states are kept on disk.
    """
    cases = {JOINT: prune_case(make_pruner(model, JOINT), prompts)}
    for preset in PRESETS:
        caches = {
            COLD: None,
            WARM: ChunkCache(),
            DISK: ChunkCache(folder / preset, max_memory_bytes=0),
        }
        for state, cache in caches.items():
            pruner = make_pruner(model, preset, chunk_cache=cache)
            cases[f"{preset}, {state}"] = prune_case(pruner, prompts)
    return cases


def peer_cases(prompts: Sequence[Prompt]) -> dict[str, Case]:
    """Return a ranking by MiniLM that embeds chunks and question, or the question alone.

    Raises:
        ImportError: If sentence-transformers isn't installed.
        ModelNotFoundError: If MiniLM can't be found.
    """
    ranker = MiniLMRanker(remember=False, batch_size=_EMBEDDED_AT_ONCE)
    ranker.prepare()
    texts = [[chunk.rendered for chunk in prompt.chunks] for prompt in prompts]
    embedded = [ranker.embed(chunks) for chunks in texts]

    def cold(index: int) -> None:
        vectors = ranker.embed([*texts[index], prompts[index].query])
        (vectors[:-1] @ vectors[-1]).argsort()

    def warm(index: int) -> None:
        [query] = ranker.embed([prompts[index].query])
        (embedded[index] @ query).argsort()

    return {MINILM_COLD: cold, MINILM_WARM: warm}


@dataclass(frozen=True, slots=True)
class Ablations:
    """Prompts read again without the chunks of each mask: what ContextCite pays, without its fit.

    Attributes:
        model: The model that answers.
        prompts: Prompts with at least two chunks.
        answers: The model's own greedy answers.
        masks: By prompt, [M, S] bool: which chunks are kept, those with the fewest tokens first.
    """

    model: AnswerModel
    prompts: Sequence[Prompt]
    answers: Sequence[str]
    masks: Sequence[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, model: LoadedModel, prompts: Sequence[Prompt], *, seed: int) -> Ablations:
        """Answer prompts and draw their masks."""
        answering = AnswerModel(model.model, model.tokenizer)
        answers, masks = [], []
        for number, prompt in enumerate(prompts):
            layout = answering.prompts.joint(prompt.query, prompt.chunks)
            [answer] = answering.generate([layout], max_new_tokens=ANSWER_TOKENS)
            answers.append(answer or prompt.query)  # an empty answer has nothing to read
            rng = np.random.default_rng([seed, number])
            drawn = draw_masks(len(prompt.chunks), MASKS, rng, keep=KEEP_RATE)
            tokens = drawn @ np.array([len(ids) for ids in layout.source_ids])
            masks.append(drawn[np.argsort(tokens, kind="stable")])  # batches of similar length
        return cls(answering, prompts, answers, masks)

    def case(self, batch: int) -> Case:
        """Return the removals, so many masks at a time."""

        def run(index: int) -> None:
            prompt, masks = self.prompts[index], self.masks[index]
            for start in range(0, len(masks), batch):
                part = masks[start : start + batch]
                answer = self.answers[index]
                ablate_by_removal(
                    self.model, prompt.query, prompt.chunks, answer, part, shared=False
                )

        return run

    def fastest(self) -> tuple[int, Case]:
        """Return the fastest of `MASK_BATCHES` on the first prompt, and its case."""
        seconds = {}
        single = replace(self, masks=[masks[:1] for masks in self.masks])
        single.case(1)(0)  # so that the first size doesn't pay for the start
        for size in MASK_BATCHES:
            start = time.perf_counter()
            self.case(size)(0)
            seconds[size] = time.perf_counter() - start
        batch = min(seconds, key=seconds.__getitem__)
        return batch, self.case(batch)


def reference_case(reference: ReferenceAT2, prompts: Sequence[Prompt]) -> Case:
    """Return the reference AT2, which generates its answer and attributes it to the chunks."""

    def run(index: int) -> None:
        reference.scores(prompts[index], answer_tokens=ANSWER_TOKENS)

    return run
