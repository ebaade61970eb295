"""Answers in padded batches, by the interface of transformers alone: for any family."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

BATCH_TOKENS = 4096
"""Most tokens (padding included) of one batch; a longer prompt is alone in one."""

BATCH_ROWS = 16
"""Most prompts of one batch."""


class PaddedGeneration:
    """Answers prompts padded on the left.

    Args:
        model: A causal language model.
        end_ids: Tokens that end an answer.
    """

    batch_tokens = BATCH_TOKENS
    batch_rows = BATCH_ROWS

    def __init__(self, model: Any, end_ids: Collection[int]) -> None:
        self._model, self._end_ids = model, end_ids

    def generate(
        self, rows: Sequence[Sequence[int]], answer_tokens: int
    ) -> tuple[list[list[int]], float]:
        """Return each row's new tokens, its end token included, and the seconds of the prefill."""
        start, device = time.perf_counter(), self._model.device
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        seconds: list[float] = []

        def note_time(ids: Tensor, scores: Any, **_: Any) -> Tensor:
            """Note when each token was there; stop none."""
            seconds.append(time.perf_counter() - start)
            return torch.zeros(len(rows), dtype=torch.bool, device=ids.device)

        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=torch.tensor(
                    [[0] * (width - len(row)) + [1] * len(row) for row in rows]
                ).to(device),
                max_new_tokens=answer_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                eos_token_id=sorted(self._end_ids) or None,
                pad_token_id=0,
                stopping_criteria=[note_time],
            )
        return [self._until_end(row) for row in output[:, width:].tolist()], seconds[0]

    def _until_end(self, tokens: list[int]) -> list[int]:
        ends = [index for index, token in enumerate(tokens) if token in self._end_ids]
        return tokens[: ends[0] + 1] if ends else tokens
