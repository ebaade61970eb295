"""Answers over prompts that are read in full, as a generator reads them after pruning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from at2_rag.prompt.layout import AnswerLayout, PromptLayout
from at2_rag.training.answering.answer_model import AnswerModel, token_logit_probabilities

BATCH_TOKENS = 4096
"""Most tokens (padding included) of one forward pass; a longer prompt has a pass of its own."""


class JointAnswerModel(AnswerModel):
    """An answer model that also answers, and reads answers, over joint prompts."""

    def generate(self, prompts: Sequence[PromptLayout], *, max_new_tokens: int = 32) -> list[str]:
        """Return the greedy answer to each joint prompt."""
        rows = [(*prompt.input_ids, *self.prompts.bridge_ids) for prompt in prompts]
        self.check_window(len(row) + max_new_tokens for row in rows)
        answers = []
        for row in rows:
            ids = torch.tensor([row], device=self.scoring_model.device)
            with torch.inference_mode():
                output = self._view.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    repetition_penalty=1.0,
                    pad_token_id=self._tokenizer.eos_token_id,
                )
            answers.append(self.decode(output[0, len(row) :].tolist()))
        return answers

    def read(self, layouts: Sequence[AnswerLayout]) -> list[Tensor]:
        """Return for each joint prompt the logit-probability of every answer token, [A] float32."""
        rows = [layout.input_ids for layout in layouts]
        self.check_window(map(len, rows))
        results: dict[int, Tensor] = {}
        for batch in _batches([len(row) for row in rows]):
            longest = max(len(layouts[index].answer_ids) for index in batch)
            ids, mask, positions = self._left_padded([rows[index] for index in batch])
            with torch.inference_mode():
                logits = self._view(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=False,
                    logits_to_keep=longest + 1,
                ).logits
            for row, index in zip(logits, batch, strict=True):
                answer = torch.tensor(layouts[index].answer_ids, device=ids.device)
                results[index] = token_logit_probabilities(row[-len(answer) - 1 : -1], answer)
        return [results[index] for index in range(len(rows))]

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return token ids, attention mask and positions, each [B, N]."""
        device = self.scoring_model.device
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
        pads = torch.tensor([width - len(row) for row in rows], device=device)
        columns = torch.arange(width, device=device)
        mask = (columns >= pads[:, None]).long()
        return ids, mask, (columns - pads[:, None]).clamp(min=0)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield indices in batches of similar length within the token budget."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
