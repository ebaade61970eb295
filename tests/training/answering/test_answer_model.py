"""Likelihoods of answers against the stock model and a brute-force forward under a mask."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from at2_rag.errors import PromptTooLongError, UnsupportedModelError
from at2_rag.prompt.layout import AnswerLayout
from at2_rag.reading.scoring_model import INDEPENDENT_FAMILIES
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.ablation import log_probability, logit_probability
from at2_rag.training.answering.answer_model import AnswerModel, token_logit_probabilities
from tests.tiny_models import tiny_model, tiny_tokenizer

CHUNKS = (
    Chunk("Jane Austen wrote Emma in 1815.", title="Emma"),
    Chunk("The river flows to the sea."),
    Chunk("The bridge was opened in 1932 and spans the harbour."),
)
QUERY, ANSWER = "who wrote the novel Emma?", "Jane Austen, in 1815"


def answer_model(family: str = "llama", *, chat_template: bool = True) -> AnswerModel:
    return AnswerModel(tiny_model(family), tiny_tokenizer(chat_template))


def log_softmax_of(layout: AnswerLayout, logits: Tensor) -> Tensor:
    """Return the answer tokens' log-probabilities from logits [N, V] of the whole prompt."""
    tokens = torch.tensor(layout.answer_ids)
    return logits[-len(tokens) - 1 : -1].double().log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def brute_force_logits(family: str, layout: AnswerLayout, kept: list[bool]) -> Tensor:
    """Read one long sequence whose mask keeps sources apart and hides those left out, [N, V]."""
    model = tiny_model(family, attn_implementation="eager")
    prompt = layout.prompt
    prefix, longest = len(prompt.prefix_ids), max(map(len, prompt.source_ids))
    owner, positions = [-1] * prefix, list(range(prefix))
    for index, ids in enumerate(prompt.source_ids):
        owner += [index] * len(ids)
        positions += range(prefix, prefix + len(ids))
    owner += [-2] * len(layout.query_ids)
    positions += range(prefix + longest, prefix + longest + len(layout.query_ids))
    owners = torch.tensor(owner)
    hidden = torch.tensor([*[not keep for keep in kept], False, False])[owners]  # -1, -2: the last
    allowed = (owners[:, None] == owners) | (owners == -1) | (owners[:, None] == -2)
    allowed &= ~(hidden[None, :] & (owners[:, None] == -2))
    allowed &= torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    mask = torch.zeros(1, 1, *allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with torch.inference_mode():
        logits: Tensor = model(
            torch.tensor([layout.input_ids]),
            attention_mask=mask,
            position_ids=torch.tensor([positions]),
            use_cache=False,
        ).logits[0]
    return logits


@pytest.mark.parametrize("family", sorted(INDEPENDENT_FAMILIES))
def test_question_and_answer_over_masked_states_equal_brute_force(family: str) -> None:
    model = answer_model(family)
    layout = model.prompts.answer(model.prompts.independent(QUERY, CHUNKS), ANSWER)
    first, last = layout.prompt.target_span
    masks = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    read = model.read_masked(layout, masks, question=True)
    answer = read[:, last - first :]
    assert answer.shape == (4, len(layout.answer_ids))
    assert model.read_masked(layout, masks).allclose(answer, atol=1e-4)
    tokens = torch.tensor(layout.input_ids)[first:last]
    for mask, row in zip(masks, torch.nn.functional.logsigmoid(read.double()), strict=True):
        logits = brute_force_logits(family, layout, mask.tolist()).double()
        expected = log_softmax_of(layout, logits)
        assert row[last - first :].allclose(expected, atol=1e-5)
        asking = logits[first - 1 : last - 1].log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        assert row[: last - first].allclose(asking, atol=1e-5)


def test_families_that_can_not_be_read_independently_are_refused() -> None:
    model = answer_model("gemma2")
    layout = model.prompts.answer(model.prompts.independent(QUERY, CHUNKS), ANSWER)
    with pytest.raises(UnsupportedModelError, match="gemma2"):
        model.read_masked(layout, torch.ones(1, 3, dtype=torch.bool))


def test_too_long_names_both_numbers() -> None:
    model = answer_model()
    prompt = model.prompts.joint(QUERY, CHUNKS)
    with pytest.raises(PromptTooLongError, match=r"need \d+ tokens.*takes 2048"):
        model.prompts.answer(prompt, "word " * 2000)


@pytest.mark.parametrize(
    "answer",
    [" Jane\n Austen ", "北京 🙂 Größe", "a <|im_end|> b", "x\ud83d\ude42y\ud800z"],
)
def test_spans_are_the_answers_characters(answer: str) -> None:
    model = answer_model()
    layout = model.prompts.answer(model.prompts.joint(QUERY, CHUNKS), answer)
    assert len(layout.spans) == len(layout.answer_ids)
    covered = {index for start, end in layout.spans for index in range(start, end)}
    assert covered == set(range(len(answer)))
    assert [start for start, _ in layout.spans] == sorted(start for start, _ in layout.spans)
    special = set(tiny_tokenizer().all_special_ids)
    assert special.isdisjoint(layout.answer_ids)


def test_logit_probabilities_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    actual = token_logit_probabilities(probabilities.log(), torch.tensor([0, 1])).numpy()
    assert actual.tolist() == pytest.approx([0.0, math.log(0.8 / 0.2)], abs=1e-6)
    whole = 0.5 * 0.8
    assert float(log_probability(actual)) == pytest.approx(math.log(whole), abs=1e-6)
    assert float(logit_probability(actual)) == pytest.approx(
        math.log(whole / (1 - whole)), abs=1e-6
    )


@pytest.mark.parametrize(
    "logits", [[800.0], [760.0, 770.0], [45.0, 46.5, 60.0], [47.0], [30.0, 900.0], [-800.0, 5.0]]
)
def test_answers_next_to_certain_have_finite_logit_probabilities(logits: list[float]) -> None:
    with localcontext() as context:
        context.prec = 900
        sure = [1 / (1 + Decimal(-logit).exp()) for logit in logits]
        whole = Decimal(math.prod(sure))
        expected = float((whole / (1 - whole)).ln())
    actual = logit_probability(np.array([logits], dtype=np.float32))
    assert actual.dtype == np.float64 and actual.tolist() == pytest.approx([expected], rel=1e-9)
