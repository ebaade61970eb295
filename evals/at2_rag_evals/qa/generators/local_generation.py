"""Greedy answers of a local model to several prompts at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.answering.packed_decoding import PackedDecoding

PACK_TOKENS = 2048
"""Most tokens of prompts that are read in one row; a longer prompt is alone in one."""


class PackedGeneration:
    """Answers without padding: prompts, then their newest tokens, packed into one row.

    Only the attention keeps prompts apart, see `PackedDecoding`. An answer that has ended costs
    nothing more.

    Args:
        model: A causal language model; not changed.
        tokenizer: Its fast tokenizer.
        end_ids: Tokens that end an answer.

    Raises:
        UnsupportedModelError: If the model can't read chunks independently.
    """

    batch_tokens, batch_rows = 16384, 64  # most tokens and prompts that are answered together

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

        for pack in grouped(list(map(len, rows)), lambda lengths: sum(lengths) <= PACK_TOKENS):
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


class PaddedGeneration:
    """Answers prompts padded on the left, by transformers' `generate`: for any family.

    Args:
        model: A causal language model.
        end_ids: Tokens that end an answer.
    """

    batch_tokens, batch_rows = 4096, 16  # padding included

    def __init__(self, model: Any, end_ids: Collection[int]) -> None:
        self._model, self._end_ids = model, end_ids

    def generate(
        self, rows: Sequence[Sequence[int]], answer_tokens: int
    ) -> tuple[list[list[int]], float]:
        """Return each row's new tokens, its end token included, and the seconds of the prefill."""
        start, device = time.perf_counter(), self._model.device
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        seconds: list[float] = []

        def note_time(ids: Tensor, scores: Any, **_: Any) -> Tensor:
            """Note when each token was there; stop none."""
            seconds.append(time.perf_counter() - start)
            return torch.zeros(len(rows), dtype=torch.bool, device=ids.device)

        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
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


def grouped(lengths: Sequence[int], fits: Callable[[Sequence[int]], bool]) -> Iterator[list[int]]:
    """Yield the indices of lengths in groups of neighbours that fit; one alone always does."""
    group: list[int] = []
    for index, length in enumerate(lengths):
        if group and not fits([*(lengths[member] for member in group), length]):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
