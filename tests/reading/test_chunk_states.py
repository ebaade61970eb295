"""Independent reading equals a brute-force forward, for any number of sources in any order."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from at2_rag.prompt.layout import QUESTION_ROOM, PromptLayout
from at2_rag.reading.joint import read_joint
from at2_rag.reading.scoring_model import INDEPENDENT_FAMILIES
from at2_rag.text.chunks import Chunk
from tests import brute_force
from tests.independent_reading import (
    CountingModel,
    layout_of,
    read,
    scorer,
)
from tests.tiny_models import tiny_model

FAMILIES = ("gpt2", "granite", "llama", "olmo2", "qwen2", "qwen3")


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, **values}}


LLAMA3_ROPE = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("llama", {"num_key_value_heads": 1}),
    ("llama", {"num_key_value_heads": 4, "attention_bias": True}),
    ("llama", rope("linear")),
    ("llama", rope("llama3", **LLAMA3_ROPE)),
    ("llama", rope("yarn", original_max_position_embeddings=1024)),
]
LENGTHS = [12, 3, 40, 1, 12, 25, 9]


def assert_brute_force(
    model: Any, layout: PromptLayout, *, depth: int | None = None, tolerance: float = 1e-5
) -> None:
    """Both ways of the question."""
    expected = brute_force.together(model, layout), brute_force.apart(model, layout)
    for features, truth in zip(read(scorer(model, depth), layout), expected, strict=True):
        brute_force.assert_equal(features, truth, depth=depth, tolerance=tolerance)


def test_every_family_that_may_be_read_independently_is_tested() -> None:
    assert set(FAMILIES) == INDEPENDENT_FAMILIES


@pytest.mark.parametrize("depth", [None, 2, 1])
@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_reading_equals_brute_force(
    family: str, overrides: dict[str, Any], depth: int | None
) -> None:
    model = tiny_model(family, **overrides)
    assert_brute_force(model, layout_of(scorer(model), LENGTHS), depth=depth)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_of_real_text_equals_brute_force(family: str) -> None:
    model = tiny_model(family)
    texts = ["Jane Austen wrote Emma in 1815.", "", "🙂 ספר <|im_end|>", "", "Who wrote Emma?"]
    chunks = [Chunk(text, title) for text, title in zip(texts, "abcd ", strict=True)]
    assert_brute_force(model, scorer(model).prompts.independent("Who wrote Emma?", chunks))


@pytest.mark.parametrize("lengths", [[1], [200], [1, 1, 1], [5, 300], [0, 5, 0]], ids=str)
@pytest.mark.parametrize("question", [3, 60])
def test_few_sources_equal_brute_force(lengths: list[int], question: int) -> None:
    model = tiny_model()
    assert_brute_force(model, layout_of(scorer(model), lengths, question=question))


def test_one_source_is_read_alike_together_apart_and_jointly() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, [30])
    together, apart = read(model, layout)
    (joint,) = read_joint(model, [layout])
    brute_force.assert_equal(together, joint)
    brute_force.assert_equal(apart, joint)


def test_duplicates_share_a_state_and_compete_like_others() -> None:
    model = tiny_model()
    layout = layout_of(scorer(model), LENGTHS)
    twice = replace(
        layout,
        source_ids=(*layout.source_ids, *layout.source_ids[:3]),
        owners=tuple(range(len(LENGTHS) + 3)),
    )
    assert_brute_force(model, twice)
    counting = CountingModel(model)
    read(counting, twice)
    prefix, sources, _ = counting.passes
    assert (prefix, sources) == (len(layout.prefix_ids), sum(LENGTHS))
    for attention in read(scorer(model), twice):
        torch.testing.assert_close(attention[..., :3], attention[..., -3:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_windows_of_a_long_chunk_equal_brute_force(family: str) -> None:
    limit = {"gpt2": "n_positions"}.get(family, "max_position_embeddings")
    model = tiny_model(family, **{limit: 400})
    chunks = [Chunk("short"), Chunk("qxzjk" * 160), Chunk("Jane Austen wrote Emma.")]
    layout = scorer(model).prompts.independent("Who wrote Emma?", chunks)
    assert layout.owners == (0, 1, 1, 1, 1, 2)
    longest = max(map(len, layout.source_ids))
    assert len(layout.prefix_ids) + longest + QUESTION_ROOM == 400
    assert_brute_force(model, layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_order_does_not_matter(dtype: torch.dtype) -> None:
    """Bitwise equal in float32, within 0.001 in bfloat16."""
    model = scorer(tiny_model().to(dtype))
    layout = layout_of(model, [*LENGTHS, 12, 12])
    count = len(layout.source_ids)
    features = read(model, layout)
    shuffle = random.Random(0)
    for _ in range(4):
        order = list(range(count))
        shuffle.shuffle(order)
        sources = tuple(layout.source_ids[index] for index in order)
        for ours, theirs in zip(
            read(model, replace(layout, source_ids=sources)), features, strict=True
        ):
            back = ours[..., torch.tensor(order).argsort()]
            if dtype == torch.float32:
                assert torch.equal(back, theirs)
            else:
                torch.testing.assert_close(back, theirs, rtol=0, atol=1e-3)


def test_apart_does_not_know_how_many_others_there_are() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    _, features = read(model, layout)
    for index, ids in enumerate(layout.source_ids):
        _, alone = read(model, brute_force.single(layout, ids))
        torch.testing.assert_close(alone[..., 0], features[..., index], rtol=0, atol=1e-5)


def test_bfloat16_is_near_brute_force() -> None:
    """Masses within 0.02 of float32's."""
    model = tiny_model()
    layout = layout_of(scorer(model), LENGTHS)
    for attention, expected in zip(
        read(scorer(tiny_model().to(torch.bfloat16)), layout),
        (brute_force.together(model, layout), brute_force.apart(model, layout)),
        strict=True,
    ):
        assert attention.dtype == torch.float32
        torch.testing.assert_close(attention, expected, rtol=0, atol=0.02)


def test_the_brute_force_over_joined_caches_is_the_one_over_a_long_sequence() -> None:
    model = tiny_model()
    layout = layout_of(scorer(model), LENGTHS)
    one, other = brute_force.together(model, layout), brute_force.together_cached(model, layout)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_feed_forward_blocks_of_any_size_give_the_same(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("at2_rag.reading.scoring_model.BLOCK_ROWS", 7)
    model = tiny_model(family)
    assert_brute_force(model, layout_of(scorer(model), LENGTHS))


@pytest.mark.parametrize("limit", [1, 20, 50, 100])
def test_groups_of_any_cut_give_the_same(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "chunk_states.PACK_TOKENS",
        "chunk_states.GROUP_TOKENS",
        "question_pass.CALL_TOKENS",
    ):
        monkeypatch.setattr(f"at2_rag.reading.{name}", limit)
    model = tiny_model()
    assert_brute_force(model, layout_of(scorer(model), [*LENGTHS, *LENGTHS]))
