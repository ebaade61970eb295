"""Answers in padded batches, by nothing but transformers' own interface: for any family."""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection, Sequence
from typing import Any

import torch

from at2_rag_evals.qa.generators.greedy import GreedyAnswers

BATCH_TOKENS = 4096
"""Most tokens (padding included) of one batch; a longer prompt has one of its own."""

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
        self._model = model
        self._end_ids = end_ids
        # What this version of transformers calls the keys and values of the tokens before.
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"

    def generate(
        self, rows: Sequence[Sequence[int]], answer_tokens: int
    ) -> tuple[list[list[int]], float]:
        """Return each row's new tokens, its end token included, and the seconds of the prefill."""
        model = self._model
        start = time.perf_counter()
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        pads = torch.tensor([width - len(row) for row in rows])
        places = torch.arange(width)
        # Without padding there is nothing to mask but the future, which models do by themselves
        # and quicker: attention computes no more than it needs, and copies no keys and values.
        mask = (places >= pads[:, None]).long().to(model.device) if pads.any() else None
        positions = (places - pads[:, None]).clamp(min=0).to(model.device)
        answers, everyone = GreedyAnswers(len(rows), self._end_ids), range(len(rows))
        with torch.inference_mode():
            output = model(
                input_ids=ids.to(model.device),
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
            )
            token = answers.take(output.logits[:, -1], everyone)
            prefill = time.perf_counter() - start
            for _ in range(answer_tokens - 1):
                if not answers.going:
                    break
                if mask is not None:
                    mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
                positions = positions[:, -1:] + 1
                output = model(
                    input_ids=token[:, None],
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=True,
                    **{self._cache_name: output[self._cache_name]},
                )
                token = answers.take(output.logits[:, -1], everyone)
        return answers.tokens, prefill
