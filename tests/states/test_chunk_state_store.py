"""Chunk states as values: kept in a store, grouped for the question, packed for encoding."""

from __future__ import annotations

import torch
from cachetools import LRUCache

from at2_rag.reading.chunk_states import (
    PACK_TOKENS,
    encode_prefix,
    encode_sources,
    packs,
)
from at2_rag.reading.kept_heads import KeptHeads
from tests import brute_force
from tests.independent_reading import CountingModel, layout_of, read, scorer
from tests.states.states import ROUNDING
from tests.tiny_models import tiny_model

LENGTHS = [12, 3, 40, 1, 12, 25, 9]


def test_a_store_is_filled_and_used_again() -> None:
    model = CountingModel(tiny_model())
    layout = layout_of(model, LENGTHS)
    store: dict[str, KeptHeads] = {}
    question = len(layout.question_ids) * (1 + len(LENGTHS))
    prefix = len(layout.prefix_ids)
    model.passes.clear()
    first = read(model, layout, store)
    assert model.passes == [prefix, sum(LENGTHS), question]
    assert len(store) == len(LENGTHS)
    assert sorted(state.tokens for state in store.values()) == sorted(LENGTHS)
    model.passes.clear()
    again = read(model, layout, store)
    assert model.passes == [prefix, question]
    other = read(model, layout, store, scope="another")
    assert len(store) == 2 * len(LENGTHS)
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_a_store_that_forgets_costs_only_time() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    store: LRUCache[str, KeptHeads] = LRUCache(2)
    for _ in range(2):
        for ours, expected in zip(read(model, layout, store), read(model, layout, {}), strict=True):
            brute_force.assert_equal(ours, expected, tolerance=ROUNDING)
    assert len(store) == 2


def test_what_was_known_already_is_kept_as_it_is() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    prefix, store = encode_prefix(model), dict[str, KeptHeads]()
    ready = encode_sources(model, prefix, layout.source_ids)
    states = encode_sources(model, prefix, layout.source_ids, ready=ready, store=store)
    assert len(store) == len(layout.source_ids)
    again = encode_sources(model, prefix, layout.source_ids, store=store)
    for ids in layout.source_ids:
        for known in (states, again):
            assert torch.equal(known[ids].keys, ready[ids].keys)
            assert torch.equal(known[ids].values, ready[ids].values)


def test_a_state_owns_its_memory() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    states = encode_sources(model, encode_prefix(model), layout.source_ids)
    for ids in layout.source_ids:  # 3 layers, 2 key heads of 8 dimensions
        state = states[ids]
        assert state.tokens == len(ids)
        assert state.keys.shape == (3, 2, len(ids), 8)
        assert state.values.shape == (2, 2, len(ids), 8)
        for tensor in (state.keys, state.values):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_sources_share_a_pass_up_to_its_limit() -> None:
    lengths = [PACK_TOKENS - 1, 1, 1, PACK_TOKENS, 1, PACK_TOKENS + 1, 2, 3]
    packed = [list(map(len, pack)) for pack in packs([(0,) * length for length in lengths])]
    assert packed == [lengths[:2], lengths[2:3], lengths[3:4], [1], [PACK_TOKENS + 1], [2, 3]]
    assert list(packs([])) == []
