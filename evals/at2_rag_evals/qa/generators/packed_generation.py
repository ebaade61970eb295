"""Answers without padding: prompts, then their newest tokens, packed into one row.

Only the attention keeps prompts apart (see `at2_rag.training.answering.packed_decoding`), and an
answer that has ended costs nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.answering.packed_decoding import PackedDecoding

BATCH_TOKENS = 16384
"""Most tokens of prompts that are answered together; a longer prompt is by itself."""

BATCH_ROWS = 64
"""Most prompts that are answered together."""

PACK_TOKENS = 2048
"""Most tokens of prompts that are read in one row; a longer prompt is alone in one."""


class PackedGeneration:
    """Answers prompts packed into rows.

    Args:
        model: A causal language model; not changed.
        tokenizer: Its fast tokenizer.
        end_ids: Tokens that end an answer.

    Raises:
        UnsupportedModelError: If the model can't read chunks independently.
    """

    batch_tokens = BATCH_TOKENS
    batch_rows = BATCH_ROWS

    def __init__(self, model: Any, tokenizer: Any, end_ids: Collection[int]) -> None:
        self._model = AnswerModel(model, tokenizer)
        self._model.scoring_model.check_independent()
        self._model.empty_past(0)  # reads the model's configuration here, untimed
        self._end_ids = end_ids

    def generate(
        self, rows: Sequence[Sequence[int]], answer_tokens: int
    ) -> tuple[list[list[int]], float]:
        """Return each row's new tokens, its end token included, and the seconds of the prefill."""
        start = time.perf_counter()
        answers: list[list[int]] = [[] for _ in rows]
        pasts = [self._model.empty_past(len(row) + answer_tokens - 1) for row in rows]
        reading = PackedDecoding([keys for keys, _ in pasts], [values for _, values in pasts])
        filled = [0] * len(rows)

        def read_on(prompts: Sequence[int], texts: Sequence[Sequence[int]]) -> None:
            """Read the next tokens of some prompts, and append the likeliest that follows each."""
            starts = [filled[prompt] for prompt in prompts]
            lengths = [len(text) for text in texts]
            reading.begin(prompts, starts, lengths)
            positions = [
                torch.arange(start, start + length)
                for start, length in zip(starts, lengths, strict=True)
            ]
            logits = self._model.run_packed(
                torch.tensor([token for text in texts for token in text]),
                torch.cat(positions),
                reading,
                rows=torch.tensor(lengths).cumsum(0) - 1,
            )
            likeliest = logits.argmax(dim=-1).tolist()  # [B, V] -> [B]
            for prompt, length, token in zip(prompts, lengths, likeliest, strict=True):
                filled[prompt] += length
                answers[prompt].append(token)

        for pack in _packs(rows):
            read_on(pack, [rows[prompt] for prompt in pack])
        prefill = time.perf_counter() - start
        for _ in range(answer_tokens - 1):
            going = [
                prompt for prompt, answer in enumerate(answers) if answer[-1] not in self._end_ids
            ]
            if not going:
                break
            read_on(going, [answers[prompt][-1:] for prompt in going])
        return answers, prefill


def _packs(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Group rows in their order, so that few tokens are read at a time."""
    pack: list[int] = []
    for index, row in enumerate(rows):
        if pack and sum(len(rows[packed]) for packed in pack) + len(row) > PACK_TOKENS:
            yield pack
            pack = []
        pack.append(index)
    if pack:
        yield pack
