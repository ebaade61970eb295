"""Late reading of many sources: each is read once; what is kept gives the same as what is fresh."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.chunk_states import PACK_TOKENS
from at2_rag.reading.independent import IndependentReader, LayoutPasses
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.reading.late import OFFSET, TARGET_TOKENS
from at2_rag.reading.scoring_model import ScoringModel
from tests import brute_force
from tests.independent_reading import CountingModel, layout_of, many_sources, scorer
from tests.tiny_models import tiny_model

LENGTHS = [12, 3, 40, 1, 12, 25, 0, 9]
PARTS = (SourcePart(2, 7, 40), SourcePart(0, 3, 3), SourcePart(5, 1, 20), SourcePart(2, 0, 7))

EIGHT_BITS = 0.1
"""Of a log ratio of the tiny model, whose keys are rounded to eight bits."""


def late(
    reader: IndependentReader, *layouts: PromptLayout, parts: tuple[SourcePart, ...] | None = None
) -> list[Tensor]:
    read = reader.read([LayoutPasses(layout, {"late": parts}) for layout in layouts])
    return [one["late"] for one in read]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_sources_and_parts_equal_brute_force(family: str) -> None:
    model = tiny_model(family)
    layout = layout_of(scorer(model), LENGTHS)
    for parts in (None, PARTS):
        [read] = late(IndependentReader(scorer(model)), layout, parts=parts)
        expected = brute_force.late(model, layout, offset=OFFSET, parts=parts)
        brute_force.assert_equal(read, expected, tolerance=EIGHT_BITS)


def test_all_sources_share_passes_and_the_question_is_read_once() -> None:
    model = CountingModel(tiny_model(num_hidden_layers=2))
    layout = many_sources(model)
    reader = IndependentReader(model)
    model.passes.clear()
    late(reader, layout)
    prefix, question, *passes = model.passes
    assert (prefix, question) == (len(layout.prefix_ids), len(layout.question_ids))
    assert sum(passes) == sum(map(len, layout.source_ids)) and max(passes) <= PACK_TOKENS


def test_layouts_that_share_sources_read_them_once_and_equal_each_alone() -> None:
    model = CountingModel(tiny_model())
    one = layout_of(model, LENGTHS, question=7)
    other = replace(layout_of(model, [5], question=30), source_ids=one.source_ids[3:], owners=())
    store: dict[str, KeptHeads] = {}
    reader = IndependentReader(model, store=store)
    reader.keep_keys(one.source_ids)
    alone = [read for layout in (one, other) for read in late(reader, layout)]
    for ours, expected in zip(late(reader, one, other), alone, strict=True):
        brute_force.assert_equal(ours, expected)
    reader = IndependentReader(model)
    reader.prefix()
    model.passes.clear()
    late(reader, one, other)
    assert sum(model.passes) == sum(LENGTHS) + 7 + 30


def test_a_layout_that_is_wanted_whole_and_in_parts_is_read_once() -> None:
    model = CountingModel(tiny_model())
    layout = layout_of(model, LENGTHS)
    reader = IndependentReader(model, store={})
    [whole], [parts] = late(reader, layout), late(reader, layout, parts=PARTS)
    model.passes.clear()
    wanted = [LayoutPasses(layout, {"late": some}) for some in (PARTS, None, ())]
    first, second, none = reader.read(wanted)
    assert model.passes == [len(layout.question_ids)]
    brute_force.assert_equal(first["late"], parts)
    brute_force.assert_equal(second["late"], whole)
    assert none["late"].shape == (3, 4, 0)


def test_kept_keys_give_the_same_as_fresh_ones_without_a_pass_over_sources() -> None:
    model = CountingModel(tiny_model())
    layout = layout_of(model, LENGTHS)
    store: dict[str, KeptHeads] = {}
    reader = IndependentReader(model, store=store)
    [forgetful] = late(reader.forgetful(), layout)
    [fresh] = late(reader, layout)
    assert len(store) == len(LENGTHS) - 1, "all but the empty one"
    model.passes.clear()
    [kept] = late(reader, layout)
    assert model.passes == [len(layout.question_ids)]
    assert torch.equal(fresh, forgetful) and torch.equal(kept, fresh)
    ahead = IndependentReader(model, store={})
    ahead.keep_keys(layout.source_ids)
    model.passes.clear()
    assert torch.equal(late(ahead, layout)[0], fresh)
    assert model.passes == [len(layout.question_ids)]


def test_keys_of_known_states_are_those_that_would_be_read() -> None:
    model = CountingModel(tiny_model())
    layout = layout_of(model, LENGTHS)
    reader = IndependentReader(model)
    states = reader.states(layout.source_ids)
    wanted = [LayoutPasses(layout, {"late": None})]
    model.passes.clear()
    [of_states] = reader.read(wanted, states=states)
    assert model.passes == [len(layout.question_ids)]
    brute_force.assert_equal(of_states["late"], late(reader, layout)[0], tolerance=EIGHT_BITS)


def test_states_of_sources_that_had_to_be_read_can_be_kept() -> None:
    model = CountingModel(tiny_model())
    layout = layout_of(model, LENGTHS)
    reader = IndependentReader(model)
    states = reader.states(layout.source_ids[:2])
    reader.read([LayoutPasses(layout, {"late": None})], states=states, keep_states=True)
    model.passes.clear()
    [both] = reader.read([LayoutPasses(layout, {"together": None})], states=states)
    assert model.passes == [len(layout.question_ids)]
    brute_force.assert_equal(both["together"], brute_force.together(tiny_model(), layout))


def test_keys_and_states_of_a_source_are_kept_apart() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    store: dict[str, KeptHeads] = {}
    some = IndependentReader(model, heads=((0, 1),), store=store)
    reader = IndependentReader(model, store=store)
    for one in (some, reader):
        late(one, layout)
    reader.states(layout.source_ids)
    heads = sorted(len(kept.levels) for kept in store.values())
    assert heads == [1] * 7 + [6] * 7 + [3 * 2 + 2 * 2] * 7
    late(IndependentReader(model, store=store, scope="another model"), layout)
    assert len(store) == 4 * 7


def test_heads_that_are_not_read_have_no_log_ratio() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    [every] = late(IndependentReader(model), layout)
    [read] = late(IndependentReader(model, heads=((0, 1), (2, 0))), layout)
    wanted = torch.zeros(3, 4, 1, dtype=torch.bool)
    wanted[0, 2:] = wanted[2, :2] = True  # two query heads share a key head
    torch.testing.assert_close(read, every * wanted)


@pytest.mark.parametrize("forged", ["tokens", "heads", "dim", "dtype", "scales"])
def test_a_store_that_returns_anything_else_is_ignored(forged: str) -> None:
    model = CountingModel(tiny_model())
    layout = layout_of(model, LENGTHS)
    store: dict[str, KeptHeads] = {}
    reader = IndependentReader(model, store=store)
    [expected] = late(reader, layout)
    for key, kept in store.items():
        levels, scales = kept.levels, kept.scales
        assert scales is not None
        store[key] = {
            "tokens": KeptHeads(levels[:, 1:], scales[:, 1:]),
            "heads": KeptHeads(levels[1:], scales[1:]),
            "dim": KeptHeads(levels[..., 1:], scales),
            "dtype": KeptHeads(levels.float(), scales),
            "scales": KeptHeads(levels),
        }[forged]
    model.passes.clear()
    assert torch.equal(late(reader, layout)[0], expected)
    assert sum(model.passes) == sum(LENGTHS) + len(layout.question_ids)
    model.passes.clear()
    assert torch.equal(late(reader, layout)[0], expected)
    assert model.passes == [len(layout.question_ids)], "and replaced"


def test_only_tokens_of_content_words_are_read() -> None:
    model = scorer(tiny_model())
    layout = replace(layout_of(model, LENGTHS, question=9), content=(3, 4, 7))
    [read] = late(IndependentReader(model), layout)
    expected = brute_force.late(tiny_model(), layout, offset=OFFSET)
    brute_force.assert_equal(read, expected, tolerance=EIGHT_BITS)
    other = brute_force.late(tiny_model(), replace(layout, content=()), offset=OFFSET)
    assert (expected - other).abs().max() > 10 * EIGHT_BITS


def test_a_long_question_is_read_at_its_ends() -> None:
    model = scorer(tiny_model())
    reader = IndependentReader(model)
    layout = layout_of(model, LENGTHS, question=2 + 300)
    ids = layout.question_ids
    short = replace(layout, question_ids=ids[: 2 + 64] + ids[-64:], target=(2, 2 + TARGET_TOKENS))
    assert torch.equal(late(reader, layout)[0], late(reader, short)[0])
    whole = layout_of(model, LENGTHS, question=2 + TARGET_TOKENS)
    [read] = late(reader, whole)
    expected = brute_force.late(tiny_model(), whole, offset=OFFSET)
    brute_force.assert_equal(read, expected, tolerance=EIGHT_BITS)


@pytest.mark.parametrize("length", [1, 12, 200])
def test_equal_sources_tie_to_the_last_bit(length: int) -> None:
    reader = IndependentReader(scorer(tiny_model()))
    for copies in range(2, 20):
        layout = layout_of(reader.model, [length, 7])
        one, other = layout.source_ids
        layout = replace(layout, source_ids=(*[one] * (copies - 1), other, one))
        [read] = late(reader, layout)
        for index in (*range(copies - 1), copies):
            assert torch.equal(read[..., index], read[..., 0])


def test_order_does_not_matter() -> None:
    reader = IndependentReader(scorer(tiny_model()))
    layout = layout_of(reader.model, [*LENGTHS, 12, 12])
    order = list(range(len(layout.source_ids)))
    random.Random(0).shuffle(order)
    moved = replace(layout, source_ids=tuple(layout.source_ids[i] for i in order))
    [before], [after] = late(reader, layout), late(reader, moved)
    assert torch.equal(after, before[..., order])


def test_the_passes_of_a_layout_come_in_the_order_wanted() -> None:
    model = tiny_model()
    reader = IndependentReader(scorer(model))
    layout = layout_of(reader.model, LENGTHS)
    others = layout_of(reader.model, [5, 6], question=4)
    first, second, third = reader.read(
        [
            LayoutPasses(layout, {"apart": None, "late": PARTS}),
            LayoutPasses(others, {"late": None}),
            LayoutPasses(layout, {"together": None}),
        ]
    )
    assert (list(first), list(second), list(third)) == (["apart", "late"], ["late"], ["together"])
    brute_force.assert_equal(first["apart"], brute_force.apart(model, layout))
    brute_force.assert_equal(third["together"], brute_force.together(model, layout))
    of_parts = brute_force.late(model, layout, offset=OFFSET, parts=PARTS)
    brute_force.assert_equal(first["late"], of_parts, tolerance=EIGHT_BITS)
    of_others = brute_force.late(model, others, offset=OFFSET)
    brute_force.assert_equal(second["late"], of_others, tolerance=EIGHT_BITS)


def test_a_question_near_the_end_of_the_window_is_read() -> None:
    model = tiny_model(max_position_embeddings=180)
    scoring_model: ScoringModel = scorer(model)
    layout = layout_of(scoring_model, [5, 9], question=60)
    room = 180 - len(layout.prefix_ids)
    assert room < OFFSET + 60
    [read] = late(IndependentReader(scoring_model), layout)
    expected = brute_force.late(model, layout, offset=room - 60)
    brute_force.assert_equal(read, expected, tolerance=EIGHT_BITS)
