"""Independent reading in few passes and little memory; test_chunk_states compares it, too."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from at2_rag.errors import UnsupportedModelError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.chunk_states import PACK_TOKENS
from at2_rag.reading.independent import IndependentReader, LayoutPasses
from at2_rag.reading.question_pass import CALL_TOKENS, QUESTION_ROWS
from at2_rag.reading.scoring_model import ScoringModel
from tests import brute_force
from tests.independent_reading import (
    CountingModel,
    layout_of,
    many_sources,
    read,
    scorer,
)
from tests.largest_tensor import LargestTensor
from tests.tiny_models import tiny_model, tiny_tokenizer

LENGTHS = [12, 3, 40, 1, 12, 25, 9]


def both(layout: PromptLayout) -> LayoutPasses:
    return LayoutPasses(layout, {"together": None, "apart": None})


def test_many_sources_share_passes() -> None:
    model = tiny_model(num_hidden_layers=2)
    counting = CountingModel(model)
    layout = many_sources(counting)
    counting.passes.clear()
    together, apart = read(counting, layout)
    prefix, *passes = counting.passes
    assert prefix == len(layout.prefix_ids)
    assert sum(passes) == sum(map(len, layout.source_ids)) + 25 + 230 * 25
    assert max(passes) <= max(PACK_TOKENS, CALL_TOKENS)
    brute_force.assert_equal(together, brute_force.together_cached(model, layout))
    brute_force.assert_equal(apart, brute_force.apart(model, layout))


@pytest.mark.parametrize("known", [0, 1, 3, len(LENGTHS)])
def test_sources_that_have_states_are_not_read_and_give_the_same(known: int) -> None:
    counting = CountingModel(tiny_model())
    layout = layout_of(counting, LENGTHS)
    parts = (SourcePart(2, 7, 40), SourcePart(0, 3, 3), SourcePart(5, 1, 20), SourcePart(2, 0, 7))
    wanted = LayoutPasses(layout, {"together": None, "apart": parts})
    reader = IndependentReader(counting)
    states = reader.states(layout.source_ids[:known])
    [fresh] = reader.read([wanted])
    counting.passes.clear()
    [features] = reader.read([wanted], states=states)
    for name in ("together", "apart"):
        brute_force.assert_equal(features[name], fresh[name])
    brute_force.assert_equal(
        features["together"], brute_force.together_cached(tiny_model(), layout)
    )
    questions = len(layout.question_ids) * (1 + len(parts))
    assert sum(counting.passes) == sum(LENGTHS[known:]) + questions


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_blocks_of_the_question_of_any_size_give_the_same(
    family: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("at2_rag.reading.question_pass.QUESTION_ROWS", rows)
    model = tiny_model(family)
    layout = layout_of(scorer(model), LENGTHS, question=23)
    together, apart = read(scorer(model), layout)
    brute_force.assert_equal(together, brute_force.together(model, layout))
    brute_force.assert_equal(apart, brute_force.apart(model, layout))


def test_a_long_question_over_many_sources_is_read_in_blocks() -> None:
    model = tiny_model()
    scoring_model = scorer(model)
    layout = layout_of(scoring_model, [40] * 60, question=5 * QUESTION_ROWS)
    reader = IndependentReader(scoring_model)
    states = reader.states(layout.source_ids)
    wanted = [LayoutPasses(layout, {"together": None})]
    with LargestTensor() as seen:
        [features] = reader.read(wanted, states=states)
    brute_force.assert_equal(features["together"], brute_force.together(model, layout))
    assert seen.most == scoring_model.heads * QUESTION_ROWS * len(layout.input_ids)


def test_of_a_long_question_each_source_sees_the_first_and_last_tokens() -> None:
    model = tiny_model()
    counting = CountingModel(model)
    layout = layout_of(counting, LENGTHS, question=2 + 300)
    counting.passes.clear()
    together, apart = read(counting, layout)
    brute_force.assert_equal(together, brute_force.together(model, layout))
    ids = layout.question_ids
    short = replace(layout, question_ids=ids[: 2 + 64] + ids[-64:], target=(2, 2 + 128))
    brute_force.assert_equal(apart, brute_force.apart(model, short))
    assert sum(counting.passes[1:]) == sum(LENGTHS) + 302 + len(LENGTHS) * 130


@pytest.mark.parametrize("tokens", [1, 127, 128])
def test_a_question_of_up_to_128_tokens_is_read_whole(tokens: int) -> None:
    model = tiny_model()
    layout = layout_of(scorer(model), LENGTHS, question=2 + tokens)
    brute_force.assert_equal(read(scorer(model), layout)[1], brute_force.apart(model, layout))


def test_order_does_not_matter() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, [*LENGTHS, 12, 12])
    before = read(model, layout)
    order = list(range(len(layout.source_ids)))
    random.Random(0).shuffle(order)
    moved = read(model, replace(layout, source_ids=tuple(layout.source_ids[i] for i in order)))
    for ours, theirs in zip(moved, before, strict=True):
        back = torch.tensor(order).argsort()
        assert torch.equal(ours[..., back], theirs)


def test_threads_give_the_serial_results() -> None:
    model = scorer(tiny_model())
    layouts = [layout_of(model, [5 + number, 40 - number, 3]) for number in range(12)]
    serial = [read(model, layout) for layout in layouts]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda layout: read(model, layout), layouts))
    for ours, theirs in zip(threaded, serial, strict=True):
        assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_modes_of_the_thread_are_as_before(grad: bool) -> None:
    model = tiny_model()
    scoring_model = scorer(model)
    layout = layout_of(scoring_model, LENGTHS)
    with torch.set_grad_enabled(grad):
        [features] = IndependentReader(scoring_model).read([both(layout)])
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled() is grad
    assert torch.is_grad_enabled()
    brute_force.assert_equal(features["together"], brute_force.together(model, layout))
    brute_force.assert_equal(features["apart"], brute_force.apart(model, layout))


def test_modes_are_as_before_after_an_error_and_the_next_call_is_right() -> None:
    model = tiny_model()
    scoring_model = scorer(model)
    layout = layout_of(scoring_model, LENGTHS)
    reader = IndependentReader(scoring_model)
    reader.prefix()
    weight = model.model.layers[1].mlp.down_proj.weight
    right, weight.data = weight.data, torch.zeros(3, 3)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="shape"):
            reader.read([both(layout)])
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
        weight.data = right
        [features] = reader.read([both(layout)])
    brute_force.assert_equal(features["together"], brute_force.together(model, layout))
    brute_force.assert_equal(features["apart"], brute_force.apart(model, layout))


def test_a_model_whose_prompts_take_turns_is_refused() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = ScoringModel(tiny_model(rope_parameters=rope), tiny_tokenizer())
    with pytest.raises(UnsupportedModelError, match="'dynamic' depends on length"):
        IndependentReader(model)
