"""Greedy answers over chunk states: nothing but the question and the answer itself is run.

The model's answer to a question whose chunks were read independently. Where chunk states exist
anyway, as in collecting ablations, an answer costs little more than its tokens; reading the joint
prompt for it would cost more than everything done with the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor

import torch

from at2_rag.errors import PromptTooLongError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.answering.packed_decoding import PackedDecoding

LEAST_TOKENS = 8
"""Tokens before which no answer ends: small models like to stop after "The answer is:"."""

BATCH_ANSWERS = 8
"""Most questions that are answered side by side; each holds a copy of its sources' states."""


def answer_over_states(
    model: AnswerModel,
    prompts: Sequence[PromptLayout],
    states: Mapping[tuple[int, ...], ChunkState],
    *,
    max_new_tokens: int,
    workers: Executor | None = None,
) -> list[str]:
    """Return the greedy answer to each independent prompt, at most so many tokens long.

    Args:
        model: The model that answers.
        prompts: Independent prompts.
        states: What `AnswerModel.encode` returned for all their sources.
        max_new_tokens: Most tokens of an answer; the fewest are `LEAST_TOKENS`, or that if less.
        workers: Threads that each answer batches; None for the caller's alone. The batches, and
            so the answers, don't depend on their number.

    Raises:
        PromptTooLongError: If a question and its answer may exceed the model's window, beside the
            longest source.
    """
    for prompt in prompts:
        needed = question_end(model, prompt) + max_new_tokens
        if needed > model.prompts.max_tokens:
            raise PromptTooLongError(
                f"question and answer may need {needed} tokens with the longest chunk alone, the "
                f"model takes {model.prompts.max_tokens}; ask for a shorter answer"
            )
    batches = [
        prompts[start : start + BATCH_ANSWERS] for start in range(0, len(prompts), BATCH_ANSWERS)
    ]

    def answer(batch: Sequence[PromptLayout]) -> list[str]:
        tokens = [list[int]() for _ in batch]
        for index, token in _greedy(model, batch, states, max_new_tokens):
            tokens[index].append(token)
        return [model.decode(answer_ids) for answer_ids in tokens]

    answered = workers.map(answer, batches) if workers else map(answer, batches)
    return [text for texts in answered for text in texts]


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
) -> Iterator[tuple[int, int]]:
    """Yield (index of the prompt, next token of its answer) until all answers have ended."""
    rows = [[*prompt.question_ids, *model.prompts.bridge_ids] for prompt in prompts]
    ends = [question_end(model, prompt) for prompt in prompts]
    pasts = [
        model.gather(prompt, states, room=len(row) + max_new_tokens)
        for prompt, row in zip(prompts, rows, strict=True)
    ]
    going = list(range(len(prompts)))
    reading = PackedDecoding([keys for keys, _ in pasts], [values for _, values in pasts])
    filled = [
        keys.shape[2] - len(row) - max_new_tokens
        for (keys, _), row in zip(pasts, rows, strict=True)
    ]
    end_ids = model.end_ids
    no_end = torch.tensor(sorted(end_ids), dtype=torch.int64)  # may be empty
    for step in range(max_new_tokens):
        lengths = [len(rows[index]) for index in going]
        reading.begin(going, [filled[index] for index in going], lengths)
        positions = [
            torch.arange(ends[index] - length, ends[index])
            for index, length in zip(going, lengths, strict=True)
        ]
        last = torch.tensor(lengths).cumsum(0) - 1
        logits = model.run_packed(
            torch.tensor([token for index in going for token in rows[index]]),
            torch.cat(positions),
            reading,
            rows=last,
        )
        if step < LEAST_TOKENS:
            logits = logits.index_fill(1, no_end.to(logits.device), -torch.inf)
        chosen = logits.argmax(-1).tolist()
        still = []
        for index, length, token in zip(going, lengths, chosen, strict=True):
            filled[index] += length
            if token in end_ids:
                continue
            yield index, token
            rows[index] = [token]
            ends[index] += 1
            still.append(index)
        going = still
        if not going:
            return
