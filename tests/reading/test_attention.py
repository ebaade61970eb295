"""Captured attention equals eager attention on every layer, and hand-computed fractions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from at2_rag.errors import UnsupportedModelError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.attention import (
    IMPLEMENTATION,
    READING_KEYWORD,
    TARGET_ROWS,
    AttentionCall,
    JointCapture,
    PassComplete,
    Span,
    span_logsumexp,
    target_logits,
)
from at2_rag.reading.joint import read_joint
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from tests import brute_force
from tests.brute_force import random_layout
from tests.largest_tensor import LargestTensor
from tests.tiny_models import FAMILIES, tiny_model, tiny_tokenizer

WINDOWED = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
CHUNKED = {"intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 16}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("llama", {"num_key_value_heads": 1}),
    ("llama", {"num_hidden_layers": 1}),
    ("mistral", {"sliding_window": 40}),
    ("qwen2", WINDOWED),
    ("llama4_text", CHUNKED),
]
NO_SDPA = {"gemma2", "gpt_oss"}

TEXTS = (
    "Jane Austen wrote Emma in 1815.",
    "",
    "The bridge was opened in 1932 and spans the harbour; the river flows to the sea.",
    "Jane Austen wrote Emma in 1815.",
)
QUESTIONS = (
    ("Who wrote Emma?", TEXTS),
    ("What is the bridge over the harbour of the old town called?", TEXTS[2:3]),
    ("When?", TEXTS[:2]),
)


def layouts(model: ScoringModel) -> list[PromptLayout]:
    return [model.prompts.joint(query, list(map(Chunk, texts))) for query, texts in QUESTIONS]


@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_captured_attention_equals_eager(family: str, overrides: dict[str, Any]) -> None:
    model = tiny_model(family, **overrides)
    scorer = ScoringModel(model, tiny_tokenizer())
    prompts = layouts(scorer)
    expected = [brute_force.joint(model, layout) for layout in prompts]
    assert len({len(layout.input_ids) for layout in prompts}) == len(prompts)
    for layout, truth in zip(prompts, expected, strict=True):
        brute_force.assert_equal(read_joint(scorer, [layout])[0], truth)
    for captured, truth in zip(read_joint(scorer, prompts), expected, strict=True):
        brute_force.assert_equal(captured, truth)


def test_families_exercise_softcap_sinks_and_windows() -> None:
    assert len(FAMILIES) >= 12
    assert tiny_model("gemma2").config.attn_logit_softcapping == 2.0
    assert tiny_model("gpt_oss").model.layers[0].self_attn.sinks.abs().sum() > 0
    assert "sliding_attention" in tiny_model("gemma3_text").config.layer_types
    assert tiny_model("phi3").config.sliding_window == 16


def test_nothing_beyond_a_sliding_window() -> None:
    # Window 8: the last token (place 31) sees places 24 to 31, the one before it 23 to 30. The
    # prefix is 0 to 4; the sources are 5 to 14, 15 to 23 and 24 to 28.
    model = tiny_model("mistral", sliding_window=8)
    scorer = ScoringModel(model, tiny_tokenizer())
    layout = random_layout([10, 9, 5], prefix=range(3, 8), question=3)
    last = read_joint(scorer, [replace(layout, target=(2, 3))])[0]
    both = read_joint(scorer, [replace(layout, target=(1, 3))])[0]
    assert (last[..., :2] == 0).all()
    assert (last[..., 2] > 0).all()
    assert (both[..., 0] == 0).all()
    assert (both[..., 1:] > 0).all()


def logits_of(model: Any, implementation: str, **kwargs: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 384, (2, 40), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :13] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model.set_attn_implementation(implementation)
    with torch.inference_mode():
        output = model(
            ids, attention_mask=mask, position_ids=positions, use_cache=False, **kwargs
        ).logits
    real: Tensor = output[mask.bool()]
    return real


@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_output_is_the_models_own(family: str, overrides: dict[str, Any]) -> None:
    model = tiny_model(family, **overrides)
    eager = logits_of(model, "eager")
    unchanged = eager if family in NO_SDPA else logits_of(model, "sdpa")
    capture = joint_capture([[38, 39]] * 2, [[(20, 24)]] * 2, depth=99)
    captured = logits_of(model, IMPLEMENTATION, **{READING_KEYWORD: capture})
    plain = logits_of(model, IMPLEMENTATION)
    torch.testing.assert_close(plain, unchanged, rtol=0, atol=1e-6)
    torch.testing.assert_close(plain, eager, rtol=0, atol=1e-4)
    assert torch.equal(captured, plain)
    assert len(capture.captured) == model.config.num_hidden_layers


def joint_capture(
    targets: list[list[int]], sources: list[list[Span]], *, depth: int = 1
) -> JointCapture:
    """Return a capture of as many target rows for each prompt."""
    rows = torch.tensor(targets)
    shares = torch.full((len(rows), 1, rows.shape[1]), 1 / rows.shape[1])
    return JointCapture(rows=rows, shares=shares, sources=sources, depth=depth)


# By hand. Four tokens whose attention logits are log 1, log 2, log 3 and log 4 for a query of 1,
# so that a row's attention is 1 : 2 : 3 : 4 over what it may see. The prefix is place 0, the
# sources are place 1 and places 2 and 3.
WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])
HIDE_1 = torch.tensor([True, False, True, True])
LOWEST = torch.finfo(torch.float32).min
ADDITIVE = torch.tensor([0.0, LOWEST, math.log(2), 0.0])  # hides place 1, doubles place 2


def call_of(
    keys: Tensor,
    *,
    queries: Tensor | None = None,
    mask: Tensor | None = None,
    scaling: float = 1.0,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> AttentionCall:
    """Return the call of one layer: D = 1, keys [Hkv, N], queries [H], the same in each row."""
    query = (torch.ones(1) if queries is None else queries).view(1, -1, 1, 1)
    key = keys.view(1, -1, keys.shape[-1], 1)

    def plain() -> Tensor:
        raise AssertionError("the last layer's output isn't needed")

    query = query.expand(1, -1, key.shape[2], 1)
    return AttentionCall(0, query, key, key, mask, scaling, softcap, sinks, plain)


def rows(mask: Tensor) -> Tensor:
    """Return a mask [1, 1, 4, 4] with the same row four times."""
    return mask.expand(1, 1, 4, 4)


BY_HAND: dict[str, tuple[AttentionCall, int, list[list[float]]]] = {
    "causal": (call_of(WEIGHTS.log()), 3, [[2 / 10, 7 / 10]]),
    "causal, a row before": (call_of(WEIGHTS.log()), 2, [[2 / 6, 3 / 6]]),
    "bool mask": (call_of(WEIGHTS.log(), mask=rows(HIDE_1)), 3, [[0, 7 / 8]]),
    "float mask": (call_of(WEIGHTS.log(), mask=rows(ADDITIVE)), 3, [[0, 10 / 11]]),
    "scaling": (call_of(WEIGHTS.log(), scaling=2.0), 3, [[4 / 30, 25 / 30]]),
    "softcap": (
        call_of(2 * torch.atanh(WEIGHTS.log() / 2), softcap=2.0),
        3,
        [[2 / 10, 7 / 10]],
    ),
    "softcap, then mask": (
        call_of(2 * torch.atanh(WEIGHTS.log() / 2), softcap=2.0, mask=rows(HIDE_1)),
        3,
        [[0, 7 / 8]],
    ),
    "sinks": (
        call_of(WEIGHTS.log(), sinks=torch.tensor([10.0]).log()),
        3,
        [[2 / 20, 7 / 20]],
    ),
    "grouped queries": (
        call_of(
            torch.stack([WEIGHTS.log(), torch.tensor([1.0, 1.0, 2.0, 6.0]).log()]),
            queries=torch.tensor([1.0, 2.0, 1.0, 2.0]),
        ),
        3,
        [[2 / 10, 7 / 10], [4 / 30, 25 / 30], [1 / 10, 8 / 10], [1 / 42, 40 / 42]],
    ),
}


@pytest.mark.parametrize(("call", "row", "mass"), BY_HAND.values(), ids=BY_HAND)
def test_mass_by_hand(call: AttentionCall, row: int, mass: list[list[float]]) -> None:
    capture = joint_capture([[row]], [[(1, 2), (2, 4)]])
    with pytest.raises(PassComplete):
        capture.attend(call)
    expected = torch.tensor(mass, dtype=torch.float32)
    torch.testing.assert_close(capture.captured[0][0, 0], expected)


def test_targets_are_means_of_their_rows() -> None:
    capture = JointCapture(
        rows=torch.tensor([[3, 2, 2]]),
        shares=torch.tensor([[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]]),
        sources=[[(1, 2), (2, 3), (3, 3)]],
        depth=1,
    )
    with pytest.raises(PassComplete):
        capture.attend(call_of(WEIGHTS.log()))
    mass = [[(2 / 10 + 2 / 6) / 2, (3 / 10 + 3 / 6) / 2, 0], [2 / 6, 3 / 6, 0]]
    torch.testing.assert_close(capture.captured[0][0, :, 0], torch.tensor(mass))


@pytest.mark.parametrize("block", [1, 2, 100])
def test_rows_are_read_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("at2_rag.reading.attention.TARGET_ROWS", block)
    test_targets_are_means_of_their_rows()
    test_captured_attention_equals_eager("llama", {})


def test_spans_are_not_padded_to_the_widest() -> None:
    # 300 sources of 1 or 2 tokens and one of 500, a question of 120 tokens.
    model = tiny_model()
    scorer = ScoringModel(model, tiny_tokenizer())
    prefix = scorer.prompts.prefix_ids
    layout = random_layout([1, 2] * 150 + [500], prefix=prefix, question=120)
    expected = brute_force.joint(model, layout)
    with LargestTensor() as seen:
        [features] = read_joint(scorer, [layout])
    brute_force.assert_equal(features, expected)
    tokens = len(layout.input_ids)
    assert seen.most <= max(tokens * tokens, 4 * TARGET_ROWS * tokens)


INF = math.inf
MASKS: dict[str, tuple[Tensor | None, list[float]]] = {
    "none is causal": (None, [1, 2, 3, 0]),
    "bool": (HIDE_1.expand(1, 1, 4, 4), [1, 0, 3, 4]),
    "bool, batch of 1 for 2": (HIDE_1.expand(1, 1, 4, 4), [1, 0, 3, 4]),
    "bool, longer than the keys": (torch.cat([HIDE_1, ~HIDE_1]).expand(2, 1, 4, 8), [1, 0, 3, 4]),
    "bool, every head its own": (HIDE_1.expand(2, 2, 4, 4), [1, 0, 3, 4]),
    "float": (ADDITIVE.expand(2, 1, 4, 4), [1, 0, 6, 4]),
    "float, minus infinity": (
        ADDITIVE.clamp(min=-1).where(HIDE_1, -INF).expand(2, 1, 4, 4),
        [1, 0, 6, 4],
    ),
    "float in bfloat16": (
        torch.tensor([0.0, torch.finfo(torch.bfloat16).min, 0.0, 0.0], dtype=torch.bfloat16).expand(
            2, 1, 4, 4
        ),
        [1, 0, 3, 4],
    ),
}


@pytest.mark.parametrize(("mask", "weights"), MASKS.values(), ids=MASKS)
def test_masks_reach_the_target_rows(mask: Tensor | None, weights: list[float]) -> None:
    one = call_of(WEIGHTS.log(), queries=torch.ones(2), mask=mask)
    call = replace(one, query=one.query.expand(2, -1, -1, -1), key=one.key.expand(2, -1, -1, -1))
    logits = target_logits(call, torch.tensor([[2], [2]]))
    assert logits.shape == (2, 2, 1, 4)
    expected = torch.tensor(weights, dtype=torch.float32).expand(2, 2, 1, 4)
    torch.testing.assert_close(logits.exp(), expected)
    assert torch.equal(logits.isneginf(), expected == 0)


def test_masks_differ_by_row_of_the_batch() -> None:
    mask = torch.stack([HIDE_1, ~HIDE_1]).view(2, 1, 1, 4).expand(2, 1, 4, 4)
    one = call_of(WEIGHTS.log(), mask=mask)
    call = replace(one, query=one.query.expand(2, -1, -1, -1), key=one.key.expand(2, -1, -1, -1))
    weights = target_logits(call, torch.tensor([[0, 3], [3, 1]])).exp()
    torch.testing.assert_close(weights[0, 0], torch.tensor([[1.0, 0, 3, 4]]).expand(2, 4))
    torch.testing.assert_close(weights[1, 0], torch.tensor([[0.0, 2, 0, 0]]).expand(2, 4))


def test_span_logsumexp_of_ranges_of_each_prompt() -> None:
    logits = torch.stack([WEIGHTS, 2 * WEIGHTS]).log().view(2, 1, 1, 4)
    sums = span_logsumexp(logits, [[(0, 3), (1, 2), (2, 2)], [(3, 4), (0, 4), (0, 0)]])
    expected = torch.tensor([[math.log(6), math.log(2), -INF], [math.log(8), math.log(20), -INF]])
    torch.testing.assert_close(sums[:, 0, 0], expected)


def test_a_module_that_does_not_know_its_layer_is_refused() -> None:
    heads = torch.ones(1, 1, 4, 1)
    capture = joint_capture([[3]], [[(1, 2)]])
    with pytest.raises(UnsupportedModelError, match="Identity doesn't know its layer index"):
        ALL_ATTENTION_FUNCTIONS[IMPLEMENTATION](
            nn.Identity(), heads, heads, heads, None, **{READING_KEYWORD: capture}
        )
