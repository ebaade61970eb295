"""Answers over prompts read in full, against the stock model."""

from __future__ import annotations

import pytest
import torch

from at2_rag.errors import PromptTooLongError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.fidelity.joint_answers import JointAnswerModel
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.answering.test_answer_model import ANSWER, CHUNKS, QUERY, log_softmax_of


def answer_model(family: str = "llama", *, chat_template: bool = True) -> JointAnswerModel:
    return JointAnswerModel(tiny_model(family), tiny_tokenizer(chat_template))


@pytest.mark.parametrize("chat_template", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi3", "gpt_oss"])
def test_reading_in_full_is_the_stock_models(family: str, chat_template: bool) -> None:
    """Prompts of many lengths, batched and padded, against one call of the model each."""
    model = answer_model(family, chat_template=chat_template)
    layouts = [
        model.prompts.answer(model.prompts.joint(QUERY, CHUNKS[:count]), answer)
        for count, answer in ((3, ANSWER), (0, "no"), (1, "Emma " * 9), (2, ANSWER))
    ]
    stock = tiny_model(family)
    for layout, actual in zip(layouts, model.read(layouts), strict=True):
        with torch.inference_mode():
            logits = stock(torch.tensor([layout.input_ids]), use_cache=False).logits[0]
        expected = log_softmax_of(layout, logits)
        assert torch.nn.functional.logsigmoid(actual.double()).allclose(expected, atol=1e-5)


def test_generation_is_greedy_whatever_shares_the_batch() -> None:
    model, stock, tokenizer = answer_model(), tiny_model(), tiny_tokenizer()
    prompts = [model.prompts.joint(QUERY, CHUNKS[:count]) for count in (3, 0, 1, 2)]
    answers = model.generate(prompts, max_new_tokens=6)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = [*prompt.input_ids, *model.prompts.bridge_ids]
        new: list[int] = []
        while len(new) < 6 and tokenizer.eos_token_id not in new:
            with torch.inference_mode():
                new.append(int(stock(torch.tensor([ids + new])).logits[0, -1].argmax()))
        assert answer == str(tokenizer.decode(new, skip_special_tokens=True)).strip()


def test_a_prompt_without_room_for_its_answer_is_refused() -> None:
    model = answer_model()
    many = [Chunk("Jane Austen wrote Emma. " * 40) for _ in range(2)]
    fits = model.prompts.joint(QUERY, many)
    with pytest.raises(PromptTooLongError, match=r"have \d+ tokens, the model takes 2048"):
        model.generate([fits], max_new_tokens=2048)
