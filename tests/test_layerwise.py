"""Reading layer by layer equals reading over chunk states, and a brute-force forward."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from at2_rag.attention import SpanAttention
from at2_rag.chunk_states import PACK_TOKENS, encode_prefix, encode_sources
from at2_rag.layerwise import read_layerwise
from at2_rag.prompt import PromptLayout
from at2_rag.question_pass import APART_TOKENS, read_apart, read_together
from at2_rag.scoring_model import INDEPENDENT_FAMILIES, ScoringModel
from at2_rag.state_groups import SourcePart, gather_states
from at2_rag.stopwatch import Stopwatch
from tests import brute_force
from tests.independent_reading import CountingModel, layout_of, many_sources, scorer
from tests.tiny_models import tiny_model

LENGTHS = [12, 3, 40, 1, 12, 25, 9]


def read(
    model: ScoringModel, layout: PromptLayout, parts: tuple[SourcePart, ...] | None = None
) -> tuple[SpanAttention, SpanAttention]:
    with torch.inference_mode():
        prefix = encode_prefix(model)
        found = read_layerwise(
            model, prefix, layout, {"together": parts, "apart": parts}, Stopwatch()
        )
    return found["together"], found["apart"]


def assert_brute_force(model: Any, layout: PromptLayout, *, depth: int | None = None) -> None:
    together, apart = read(scorer(model, depth), layout)
    brute_force.assert_equal(together, brute_force.together(model, layout), depth=depth)
    brute_force.assert_equal(apart, brute_force.apart(model, layout), depth=depth)


@pytest.mark.parametrize("depth", [None, 2, 1])
@pytest.mark.parametrize("family", sorted(INDEPENDENT_FAMILIES))
def test_reading_equals_brute_force(family: str, depth: int | None) -> None:
    model = tiny_model(family)
    assert_brute_force(model, layout_of(scorer(model), LENGTHS), depth=depth)


@pytest.mark.parametrize("lengths", [[1], [200], [1, 1, 1], [5, 300], [0, 5, 0]], ids=str)
def test_few_sources_equal_brute_force(lengths: list[int]) -> None:
    model = tiny_model()
    assert_brute_force(model, layout_of(scorer(model), lengths))


def test_equal_sources_have_features_of_their_own() -> None:
    model = tiny_model()
    layout = layout_of(scorer(model), LENGTHS)
    sources = (*layout.source_ids, *layout.source_ids[:3])
    assert_brute_force(model, replace(layout, source_ids=sources, owners=tuple(range(10))))


@pytest.mark.parametrize("limit", [1, 20, 50, 100])
def test_groups_of_any_cut_give_the_same(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "chunk_states.PACK_TOKENS",
        "chunk_states.GROUP_TOKENS",
        "question_pass.APART_TOKENS",
    ):
        monkeypatch.setattr(f"at2_rag.{name}", limit)
    model = tiny_model()
    assert_brute_force(model, layout_of(scorer(model), [*LENGTHS, *LENGTHS]))


def test_feed_forward_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("at2_rag.scoring_model.BLOCK_ROWS", 7)
    for family in sorted(INDEPENDENT_FAMILIES):
        model = tiny_model(family)
        assert_brute_force(model, layout_of(scorer(model), LENGTHS))


def test_many_sources_take_as_many_passes_as_over_states() -> None:
    model = tiny_model(num_hidden_layers=2)
    counting = CountingModel(model)
    layout = many_sources(counting)
    counting.passes.clear()
    together, apart = read(counting, layout)
    prefix, *passes = counting.passes
    assert prefix == len(layout.prefix_ids)
    assert sum(passes) == sum(map(len, layout.source_ids)) + 25 + 230 * 25
    assert max(passes) <= max(PACK_TOKENS, APART_TOKENS)
    brute_force.assert_equal(together, brute_force.together_cached(model, layout))
    brute_force.assert_equal(apart, brute_force.apart(model, layout))


def test_parts_are_read_as_over_states() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    parts = (SourcePart(2, 0, 7), SourcePart(2, 7, 40), SourcePart(0, 3, 3), SourcePart(5, 1, 20))
    found = read(model, layout, parts)
    with torch.inference_mode():
        prefix = encode_prefix(model)
        encoded = encode_sources(model, prefix, list(dict.fromkeys(layout.source_ids)))
        states = gather_states(prefix, encoded, layout, parts=parts)
        expected = (read_together(model, states, layout), read_apart(model, states, layout))
    for ours, theirs in zip(found, expected, strict=True):
        brute_force.assert_equal(ours, theirs)


def test_order_does_not_matter() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, [*LENGTHS, 12, 12])
    given = read(model, layout)
    order = list(range(len(layout.source_ids)))
    random.Random(0).shuffle(order)
    moved = read(model, replace(layout, source_ids=tuple(layout.source_ids[i] for i in order)))
    for ours, theirs in zip(moved, given, strict=True):
        back = torch.tensor(order).argsort()
        assert torch.equal(ours.mass[..., back], theirs.mass)
        assert torch.equal(ours.log_ratio[..., back], theirs.log_ratio)


def test_threads_give_the_serial_results() -> None:
    model = scorer(tiny_model())
    layouts = [layout_of(model, [5 + number, 40 - number, 3]) for number in range(12)]
    serial = [read(model, layout) for layout in layouts]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda layout: read(model, layout), layouts))
    for ours, theirs in zip(threaded, serial, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.mass, other.mass)
            assert torch.equal(one.log_ratio, other.log_ratio)
