"""What leaving out each chunk costs the right answer: the truth that calibration is fitted to.

A *drop* is how much less likely the reference answer is, in nats a token of it, when the whole
model reads the prompt again without the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from at2_rag.data.examples import Example
from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.training.answering.ablation import ablate_by_removal, drops, leave_one_out
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.features import content_hash
from at2_rag.training.collection.rows import Row, collect_rows

FORMAT = 2


def collect_drops(
    model: AnswerModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    fingerprint: str,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Row]:
    """Return the drops of each example's chunks by its index, reading only what `folder` lacks.

    The answer is the first reference answer. Examples without one or without chunks are left out,
    and those whose prompt and answer exceed the model's window.

    Args:
        model: The model that answers.
        examples: What to read.
        folder: Where shards are kept.
        fingerprint: The model's.
        workers: Threads that each read examples of their own, with one torch thread each.
        progress: Called with the number of examples done and in all.

    Raises:
        DataError: If the folder holds a collection with other settings.
        InputError: If no example can be read.
        ScoringError: If the model's numbers overflowed.
        StorageError: If a shard can't be written.
    """
    found = collect_rows(
        lambda place: _drops(model, examples[place]),
        len(examples),
        folder,
        settings=drop_settings(model, examples, fingerprint=fingerprint),
        workers=workers,
        progress=progress,
    )
    if not found:
        raise InputError(
            f"none of the {len(examples)} examples has chunks and a reference answer that fit the "
            f"model's window of {model.prompts.max_tokens} tokens; pass others"
        )
    return found


def drop_settings(
    model: AnswerModel, examples: Sequence[Example], *, fingerprint: str
) -> dict[str, object]:
    """Return all that decides collected drops, JSON-ready; see `collect_drops`."""
    return {
        "format": FORMAT,
        "signal": "removal drops",
        "dtype": str(model.scoring_model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint,
        "template": model.prompts.template_hash,
        "examples": content_hash(examples),
    }


def _drops(model: AnswerModel, example: Example) -> Row | None:
    answer = example.reference_answer
    if not answer or not example.chunks:
        return None
    masks = leave_one_out(len(example.chunks))
    try:
        read = ablate_by_removal(model, example.query, example.chunks, answer, masks)
    except PromptTooLongError:
        return None
    return drops(read).astype(np.float32)
