"""Greedy answers over chunk states: nothing but the question and the answer itself is run.

Where chunk states exist anyway, as in collecting ablations, an answer costs little more than its
tokens; reading the joint prompt for it would cost more than everything done with the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import torch

from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.answering.packed_decoding import PackedDecoding

LEAST_TOKENS = 8  # no answer ends before: small models like to stop after "The answer is:"
BATCH_ANSWERS = 8  # answered side by side; each holds a copy of its sources' states


def answer_over_states(
    model: AnswerModel,
    prompts: Sequence[PromptLayout],
    states: Mapping[tuple[int, ...], ChunkState],
    *,
    max_new_tokens: int,
    workers: Executor,
) -> list[str]:
    """Return the greedy answer to each independent prompt, of at least `LEAST_TOKENS` tokens.

    The states are what `AnswerModel.encode` returned for the prompts' sources. The answers don't
    depend on the number of workers.
    """
    model.check_window(question_end(model, prompt) + max_new_tokens for prompt in prompts)
    batches = [
        prompts[start : start + BATCH_ANSWERS] for start in range(0, len(prompts), BATCH_ANSWERS)
    ]

    def answer(batch: Sequence[PromptLayout]) -> list[str]:
        return [model.decode(tokens) for tokens in _greedy(model, batch, states, max_new_tokens)]

    return [text for texts in workers.map(answer, batches) for text in texts]


def question_end(model: AnswerModel, prompt: PromptLayout) -> int:
    """Return the position after an independent prompt's question, where its answer begins."""
    longest = max(map(len, prompt.source_ids), default=0)
    question = len(prompt.question_ids) + len(model.prompts.bridge_ids)
    return len(prompt.prefix_ids) + longest + question


def _greedy(
    model: AnswerModel,
    prompts: Sequence[PromptLayout],
    states: Mapping[tuple[int, ...], ChunkState],
    max_new_tokens: int,
) -> list[list[int]]:
    """Return the tokens of each prompt's answer."""
    answers = [list[int]() for _ in prompts]
    rows = [[*prompt.question_ids, *model.prompts.bridge_ids] for prompt in prompts]
    ends = [question_end(model, prompt) for prompt in prompts]
    keys, values, filled = [], [], []
    for prompt, row in zip(prompts, rows, strict=True):
        past_keys, past_values = model.gather(prompt, states, room=len(row) + max_new_tokens)
        keys.append(past_keys)
        values.append(past_values)
        filled.append(past_keys.shape[2] - len(row) - max_new_tokens)
    reading = PackedDecoding(keys, values)
    end_ids = torch.tensor(sorted(model.end_ids), dtype=torch.int64)  # may be empty
    going = list(range(len(prompts)))
    for step in range(max_new_tokens):
        lengths = [len(rows[index]) for index in going]
        reading.begin(going, [filled[index] for index in going], lengths)
        logits = model.run_packed(
            torch.tensor([token for index in going for token in rows[index]]),
            torch.cat([torch.arange(ends[i] - len(rows[i]), ends[i]) for i in going]),
            reading,
            rows=torch.tensor(lengths).cumsum(0) - 1,
        )
        if step < LEAST_TOKENS:
            logits = logits.index_fill(1, end_ids.to(logits.device), -torch.inf)
        unfinished = []
        for index, token in zip(going, logits.argmax(-1).tolist(), strict=True):
            filled[index] += len(rows[index])
            if token not in model.end_ids:
                answers[index].append(token)
                rows[index] = [token]
                ends[index] += 1
                unfinished.append(index)
        going = unfinished
        if not going:
            break
    return answers
