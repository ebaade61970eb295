"""Collects what leaving out each chunk costs the right answer, which calibration is fitted to.

A *drop* is how much less likely the reference answer is, in nats a token of it, when the whole
model reads the prompt again without the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from at2_rag.data.examples import Example
from at2_rag.errors import PromptTooLongError
from at2_rag.training.answering.ablation import ablate_by_removal, drops, leave_one_out
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.collection import TOO_LONG, Collection, Row, split_evenly
from at2_rag.training.collection.samples import reading_settings

SHARD_EXAMPLES = 20


class DropCollection(Collection):
    """Drops of examples' chunks; a row has `drops`, [S] float32.

    The answer is the first reference answer. Examples without one or without chunks are left out,
    and those whose prompt and answer exceed the model's window.
    """

    remedy = "pass examples with chunks and a reference answer that fit the model's window"

    def __init__(
        self,
        model: AnswerModel,
        examples: Sequence[Example],
        folder: str | Path,
        *,
        fingerprint: str,
    ) -> None:
        self._model, self._examples = model, examples
        settings = {
            "signal": "removal drops",
            **reading_settings(model.scoring_model, fingerprint, examples),
        }
        super().__init__(folder, settings, split_evenly(range(len(examples)), SHARD_EXAMPLES))

    def read(self, item: int) -> Row | str:
        """Read one example."""
        example = self._examples[item]
        answer = example.reference_answer
        if not answer or not example.chunks:
            return "no answer or no chunks"
        masks = leave_one_out(len(example.chunks))
        try:
            read = ablate_by_removal(self._model, example.query, example.chunks, answer, masks)
        except PromptTooLongError:
            return TOO_LONG
        return {"drops": drops(read).astype(np.float32)}
