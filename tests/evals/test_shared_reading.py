"""Shared reading against the stock model's forward pass over each whole prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from at2_rag.errors import PromptTooLongError
from at2_rag.prompt.layout import AnswerLayout, PromptLayout
from at2_rag.reading.scoring_model import INDEPENDENT_FAMILIES
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.ablation import leave_one_out
from at2_rag_evals.fidelity.joint_answers import JointAnswerModel
from at2_rag_evals.fidelity.shared_reading import PASS_TOKENS, read_shared
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.answering.test_answer_model import ANSWER, QUERY, log_softmax_of
from tests.training.answering.test_answer_model import CHUNKS as THREE_CHUNKS

CHUNKS = (
    *THREE_CHUNKS,
    Chunk("The river flows to the sea."),  # as the second
    Chunk("The river flows to the old town."),  # begins as the second
)


def layouts_of(
    model: JointAnswerModel, chunks: Sequence[Chunk], masks: Any, answer: str = ANSWER
) -> list[AnswerLayout]:
    kept = ([chunk for chunk, keep in zip(chunks, mask, strict=True) if keep] for mask in masks)
    return [model.prompts.answer(model.prompts.joint(QUERY, some), answer) for some in kept]


def assert_stock(stock: Any, layouts: Sequence[AnswerLayout], actual: Sequence[Tensor]) -> None:
    """Assert that log-probabilities are those of one ordinary call of the model a prompt."""
    assert len(actual) == len(layouts)
    for layout, result in zip(layouts, actual, strict=True):
        with torch.inference_mode():
            logits = stock(torch.tensor([layout.input_ids]), use_cache=False).logits[0]
        expected = log_softmax_of(layout, logits)
        assert result.dtype == torch.float32 and result.shape == expected.shape
        assert torch.nn.functional.logsigmoid(result.double()).allclose(expected, atol=1e-5)


def all_masks(chunks: int) -> Any:
    return np.arange(2**chunks)[:, None] >> np.arange(chunks) & 1


@pytest.mark.parametrize("family", sorted(INDEPENDENT_FAMILIES))
def test_every_mask_equals_brute_force(family: str) -> None:
    """None, one and all of the chunks, equal chunks, every beginning that two can share."""
    stock = tiny_model(family)
    model = JointAnswerModel(stock, tiny_tokenizer())
    layouts = layouts_of(model, CHUNKS, all_masks(5))
    assert sum(len(layout.input_ids) for layout in layouts) > 4 * PASS_TOKENS
    assert_stock(stock, layouts, read_shared(model, layouts))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_long_branches_equal_brute_force(family: str) -> None:
    """Branches longer than a pass, over a long way from the root, with and without branches."""
    stock = tiny_model(family)
    model = JointAnswerModel(stock, tiny_tokenizer())
    chunks = [Chunk(f"{number} rivers flow to the sea. " * 40) for number in range(4)]
    layouts = layouts_of(model, chunks, [*leave_one_out(4)[1:], [1, 1, 0, 0], [1, 0, 0, 0]])
    assert max(len(ids) for ids in layouts[0].prompt.source_ids) > 256
    assert max(len(layout.input_ids) for layout in layouts) > 2 * PASS_TOKENS
    assert_stock(stock, layouts, read_shared(model, layouts))


@pytest.mark.parametrize(("workers", "answer"), [(1, "a"), (3, "Jane Austen"), (100, "a")])
def test_thirty_chunks_by_any_number_of_workers(answer: str, workers: int) -> None:
    stock, rng = tiny_model(), np.random.default_rng(0)
    model = JointAnswerModel(stock, tiny_tokenizer())
    chunks = [Chunk(f"River {number} flows to the sea.") for number in range(30)]
    masks = np.concatenate([leave_one_out(30), rng.random((20, 30)) < 0.2])
    layouts = layouts_of(model, chunks, masks, answer)
    assert (len(layouts[0].answer_ids) == 1) == (answer == "a")
    assert_stock(stock, layouts, read_shared(model, layouts, workers=workers))


def test_the_same_prompt_twice_and_prompts_that_share_nothing() -> None:
    stock = tiny_model()
    model = JointAnswerModel(stock, tiny_tokenizer())
    first, second = layouts_of(model, CHUNKS, leave_one_out(5)[:2])
    other = PromptLayout((9, 8), ((7, 6),), (0,), (5, 4), (0, 1))
    alone = AnswerLayout(other, (), (3,), ((0, 1),))
    # One answer is the beginning of the other.
    longer = AnswerLayout(other, (), (3, 10, 11), ((0, 1), (1, 2), (2, 3)))
    layouts = [first, alone, first, longer, second, alone]
    assert_stock(stock, layouts, read_shared(model, layouts))
    assert_stock(stock, [first], read_shared(model, [first]))


def test_every_beginning_is_run_once() -> None:
    stock = tiny_model()
    run: list[int] = []
    # Views of the model are copies of its modules, which keep their hooks.
    stock.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: run.append(inputs[0].numel())
    )
    model = JointAnswerModel(stock, tiny_tokenizer())
    layouts = layouts_of(model, CHUNKS, leave_one_out(5))
    prompts = {layout.input_ids[:-1] for layout in layouts}
    beginnings = {ids[:stop] for ids in prompts for stop in range(1, len(ids) + 1)}
    run.clear()
    read_shared(model, layouts)
    assert len(prompts) == len(layouts)
    assert sum(run) == len(beginnings) < 0.75 * sum(map(len, prompts))


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("gemma2", {}),
        ("mistral", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
        ),
    ],
)
def test_other_models_read_every_prompt_by_itself(family: str, overrides: Any) -> None:
    stock = tiny_model(family, **overrides)
    model = JointAnswerModel(stock, tiny_tokenizer())
    layouts = layouts_of(model, CHUNKS, leave_one_out(5))
    assert_stock(stock, layouts, read_shared(model, layouts))
    assert_stock(stock, layouts, read_shared(model, layouts, workers=2))


def test_a_prompt_longer_than_the_window_is_refused() -> None:
    model = JointAnswerModel(tiny_model(), tiny_tokenizer())
    prompt = PromptLayout((3,), ((4,) * 2048,), (0,), (5,), (0, 1))
    long = AnswerLayout(prompt, (), (6,), ((0, 1),))
    with pytest.raises(PromptTooLongError, match="have 2051 tokens, the model takes 2048"):
        read_shared(model, [long])
