"""Answers decoded over chunk states against a brute-force forward for every token."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from at2_rag.errors import PromptTooLongError
from at2_rag.prompt.layout import AnswerLayout, PromptLayout
from at2_rag.reading.scoring_model import INDEPENDENT_FAMILIES
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering import answer_decoding
from at2_rag.training.answering.answer_decoding import LEAST_TOKENS, answer_over_states
from at2_rag.training.answering.answer_model import AnswerModel
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.answering.test_answer_model import (
    CHUNKS,
    QUERY,
    answer_model,
    brute_force_logits,
)

QUERIES = (QUERY, "where does the river flow?", "Emma?")


def prompts_of(model: AnswerModel) -> list[PromptLayout]:
    """Questions over three, two and one of the chunks."""
    return [model.prompts.independent(query, CHUNKS[index:]) for index, query in enumerate(QUERIES)]


def answers(model: AnswerModel, prompts: list[PromptLayout], most: int = 12) -> list[str]:
    states = model.encode(list({ids for prompt in prompts for ids in prompt.source_ids}))
    with ThreadPoolExecutor(2) as workers:
        return answer_over_states(model, prompts, states, max_new_tokens=most, workers=workers)


def by_brute_force(family: str, model: AnswerModel, prompt: PromptLayout, tokens: int) -> list[int]:
    """Read everything anew for each next token; no token that ends an answer is taken."""
    actual: list[int] = []
    for _ in range(tokens):
        layout = AnswerLayout(prompt, model.prompts.bridge_ids, tuple(actual), ())
        logits = brute_force_logits(family, layout, [True] * len(prompt.source_ids))[-1].clone()
        logits[list(model.end_ids)] = float("-inf")
        actual.append(int(logits.argmax()))
    return actual


@pytest.mark.parametrize("family", sorted(INDEPENDENT_FAMILIES))
def test_answers_equal_brute_force(family: str) -> None:
    model = answer_model(family)
    prompts = prompts_of(model)
    expected = [by_brute_force(family, model, prompt, LEAST_TOKENS) for prompt in prompts]
    assert answers(model, prompts, LEAST_TOKENS) == [model.decode(tokens) for tokens in expected]
    assert len(set(map(tuple, expected))) > 1


def test_an_answer_ends_where_the_model_ends_it_but_not_at_once() -> None:
    model = answer_model()
    prompt = prompts_of(model)[0]
    tokens = by_brute_force("llama", model, prompt, 30)
    late = next(index for index in range(LEAST_TOKENS, 30) if tokens[index] not in tokens[:index])
    for index, kept in ((late, tokens[:late]), (2, None)):
        ending = tiny_model()
        ending.generation_config.eos_token_id = [tokens[index], 2]
        other = AnswerModel(ending, tiny_tokenizer())
        [actual] = answers(other, [prompt], 30)
        if kept is None:  # the third token may not end it, so another one is taken there
            kept = by_brute_force("llama", other, prompt, LEAST_TOKENS)
            assert kept[:2] == tokens[:2] and kept[2] != tokens[2]
            assert actual.startswith(model.decode(kept))
        else:
            assert actual == model.decode(kept)


def test_a_model_without_an_end_token_answers_to_the_limit() -> None:
    endless, tokenizer = tiny_model(), tiny_tokenizer()
    tokenizer.eos_token = None
    endless.config.eos_token_id = endless.generation_config.eos_token_id = None
    model = AnswerModel(endless, tokenizer)
    assert model.end_ids == frozenset()
    prompt = prompts_of(model)[0]
    expected = by_brute_force("llama", model, prompt, 12)
    assert answers(model, [prompt], 12) == [model.decode(expected)]


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = answer_model()
    prompts = prompts_of(model) * 3
    together = answers(model, prompts)
    monkeypatch.setattr(answer_decoding, "BATCH_ANSWERS", 2)
    assert answers(model, prompts) == together
    assert answers(model, []) == []


def test_what_does_not_fit_the_window_is_refused() -> None:
    model = answer_model()
    prompt = model.prompts.independent(QUERY, [Chunk("sea " * 40)])
    with pytest.raises(PromptTooLongError, match=f"the model takes {model.prompts.max_tokens}"):
        answers(model, [prompt], 2040)
