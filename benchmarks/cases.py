"""What is timed: the unit, whole `prune` calls, and what one would use instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from models import JOINT, PRESETS, make_pruner, prompt_builder
from prompts import Prompt
from timing import Case

from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache
from at2_rag.training.answering.ablation import draw_masks
from at2_rag_evals.fidelity.joint_answers import JointAnswerModel
from at2_rag_evals.rankers.embedding import EmbeddingRanker

COLD, WARM, DISK = "cold", "warm", "from disk"
REMOVALS = "32 removals"

ANSWER_TOKENS = 32  # most of an answer
MASKS, KEEP_RATE = 32, 0.5  # as ContextCite takes them
MASK_BATCHES = (1, 4, 8)  # masks read at a time
_EMBEDDED_AT_ONCE = 32  # the default of sentence-transformers


def forward_case(model: LoadedModel, prompts: Sequence[Prompt]) -> Case:
    """Return the unit: a full forward pass over question and chunks as one prompt."""
    layouts = prompt_builder(model)
    inputs = [torch.tensor([layouts.joint(p.query, p.chunks).input_ids]) for p in prompts]

    def run(index: int) -> None:
        with torch.inference_mode():
            model.model(input_ids=inputs[index], use_cache=False, logits_to_keep=1)

    return run


def prune_case(pruner: AT2Pruner, prompts: Sequence[Prompt], *, top_k: int | None = 3) -> Case:
    """Return whole `prune` calls, which report their stages."""

    def run(index: int) -> Mapping[str, float]:
        return pruner.prune(prompts[index].query, prompts[index].chunks, top_k=top_k).timings

    return run


def prune_cases(model: LoadedModel, prompts: Sequence[Prompt], folder: Path) -> dict[str, Case]:
    """Return `prune` in joint reading, and of each preset cold, warm and from disk (`folder`)."""
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


def peer_cases(prompts: Sequence[Prompt], folder: Path | None = None) -> dict[str, Case]:
    """Return a ranking by embeddings of chunks and question (cold), or the question's alone (warm).

    `folder` holds a sentence-transformers model; None for MiniLM.

    Raises:
        ImportError: If sentence-transformers isn't installed.
        ModelNotFoundError: If the model can't be found.
    """
    embedding_model = None if folder is None else str(folder)
    ranker = EmbeddingRanker(embedding_model, remember=False, batch_size=_EMBEDDED_AT_ONCE)
    ranker.prepare()
    texts = [[chunk.rendered for chunk in prompt.chunks] for prompt in prompts]
    embedded = [ranker.embed(chunks) for chunks in texts]

    def cold(index: int) -> None:
        vectors = ranker.embed([*texts[index], prompts[index].query])
        (vectors[:-1] @ vectors[-1]).argsort()

    def warm(index: int) -> None:
        [query] = ranker.embed([prompts[index].query])
        (embedded[index] @ query).argsort()

    name = "MiniLM" if folder is None else folder.name
    return {f"{name}, {COLD}": cold, f"{name}, {WARM}": warm}


def removal_cases(model: LoadedModel, prompts: Sequence[Prompt], *, seed: int) -> dict[int, Case]:
    """Return what ContextCite pays before its fit, by the number of masks read at a time.

    The model's greedy answer is read again without the chunks that each mask leaves out.

    Args:
        model: The model.
        prompts: Prompts with at least two chunks.
        seed: Seed of the masks.
    """
    answering = JointAnswerModel(model.model, model.tokenizer)
    answers: list[str] = []
    masks: list[npt.NDArray[np.bool_]] = []  # each [M, S]
    for number, prompt in enumerate(prompts):
        layout = answering.prompts.joint(prompt.query, prompt.chunks)
        [answer] = answering.generate([layout], max_new_tokens=ANSWER_TOKENS)
        answers.append(answer or prompt.query)  # an empty answer has nothing to read
        rng = np.random.default_rng([seed, number])
        drawn = draw_masks(len(prompt.chunks), MASKS, rng, keep=KEEP_RATE)
        tokens = drawn @ np.array([len(ids) for ids in layout.source_ids])
        masks.append(drawn[np.argsort(tokens, kind="stable")])  # batches of similar length

    def case(batch: int) -> Case:
        def run(index: int) -> None:
            prompt, answer = prompts[index], answers[index]
            for start in range(0, len(masks[index]), batch):
                kept = [
                    [chunk for chunk, keep in zip(prompt.chunks, mask, strict=True) if keep]
                    for mask in masks[index][start : start + batch]
                ]
                layouts = [answering.prompts.joint(prompt.query, chunks) for chunks in kept]
                answering.read([answering.prompts.answer(layout, answer) for layout in layouts])

        return run

    return {batch: case(batch) for batch in MASK_BATCHES}
