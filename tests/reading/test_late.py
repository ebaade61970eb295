"""Late reading equals a brute-force forward; what is kept of a chunk changes little and only once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import encode_prefix, encode_sources
from at2_rag.reading.int8 import Int8Heads
from at2_rag.reading.late import OFFSET, KeyHeads, read_questions
from at2_rag.reading.scoring_model import ScoringModel
from tests import brute_force
from tests.independent_reading import layout_of, scorer
from tests.reading.test_chunk_states import LENGTHS, VARIANTS
from tests.tiny_models import tiny_model


def all_heads(model: Any, layers: int) -> KeyHeads:
    heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    return tuple((layer, head) for layer in range(layers) for head in range(heads))


def exact_keys(model: ScoringModel, layout: PromptLayout, heads: KeyHeads) -> list[Int8Heads]:
    """Return the keys of each source as they are, with scales of 1."""
    states = encode_sources(model, encode_prefix(model), layout.source_ids)
    layers, numbers = (list(part) for part in zip(*heads, strict=True))
    keys = [states[ids].keys[layers, numbers] for ids in layout.source_ids]
    return [Int8Heads(one, torch.ones(one.shape[:2])) for one in keys]


def log_ratios(model: ScoringModel, layout: PromptLayout, heads: KeyHeads) -> Tensor:
    """Return the log ratio of each source over exact keys, [G, R, S]."""
    keys = exact_keys(model, layout, heads)
    [question] = read_questions(model, encode_prefix(model), [layout], heads)
    return torch.cat([question.log_ratios(one, [(0, one.tokens)]) for one in keys], dim=-1)


@pytest.mark.parametrize("depth", [None, 1])
@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_equals_brute_force(family: str, overrides: dict[str, Any], depth: int | None) -> None:
    model = tiny_model(family, **overrides)
    scoring_model = scorer(model, depth)
    layout = layout_of(scoring_model, LENGTHS)
    heads = all_heads(model, scoring_model.depth)
    read = log_ratios(scoring_model, layout, heads).flatten(0, 1)  # [L * H, S]
    expected = brute_force.late(model, layout, offset=OFFSET).log_ratio[:depth].flatten(0, 1)
    assert (read - expected).abs().max() <= 1e-4


def test_heads_are_read_one_by_one() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, LENGTHS)
    every = all_heads(tiny_model(), model.depth)
    read = log_ratios(model, layout, every)
    some = (every[0], every[3], every[-1])
    torch.testing.assert_close(log_ratios(model, layout, some), read[[0, 3, -1]])


def test_questions_share_passes() -> None:
    model = scorer(tiny_model())
    heads = all_heads(tiny_model(), model.depth)
    layouts = [layout_of(model, LENGTHS, question=size) for size in (9, 40, 3)]
    prefix = encode_prefix(model)
    for question, layout in zip(
        read_questions(model, prefix, layouts, heads), layouts, strict=True
    ):
        [alone] = read_questions(model, prefix, [layout], heads)
        torch.testing.assert_close(question.queries, alone.queries)
        torch.testing.assert_close(question.prefix, alone.prefix)
