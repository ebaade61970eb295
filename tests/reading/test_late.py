"""Late reading equals a brute-force forward, of sources and of their parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.chunk_states import encode_prefix, encode_sources
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.reading.late import OFFSET, TARGET_ROWS, KeyHeads, LateQuestion, read_questions
from at2_rag.reading.scoring_model import ScoringModel
from tests import brute_force
from tests.independent_reading import layout_of, scorer
from tests.reading.test_chunk_states import LENGTHS, VARIANTS
from tests.tiny_models import tiny_model


def all_heads(model: Any, layers: int) -> KeyHeads:
    heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    return tuple((layer, head) for layer in range(layers) for head in range(heads))


def exact_keys(model: ScoringModel, layout: PromptLayout, heads: KeyHeads) -> list[KeptHeads]:
    """Return the keys of each source as they are, with scales of 1."""
    states = encode_sources(model, encode_prefix(model), layout.source_ids)
    layers, numbers = (list(part) for part in zip(*heads, strict=True))
    keys = [states[ids].keys[layers, numbers] for ids in layout.source_ids]
    return [KeptHeads(one, torch.ones(one.shape[:2])) for one in keys]


def question_of(model: ScoringModel, layout: PromptLayout, heads: KeyHeads) -> LateQuestion:
    [question] = read_questions(model, encode_prefix(model), [layout], heads)
    return question


def log_ratios(model: ScoringModel, layout: PromptLayout, heads: KeyHeads) -> Tensor:
    """Return the log ratio of each source over exact keys, [G, R, S]."""
    keys, question = exact_keys(model, layout, heads), question_of(model, layout, heads)
    return torch.cat([question.log_ratios(one, [(0, one.tokens)]) for one in keys], dim=-1)


@pytest.mark.parametrize("depth", [None, 1])
@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_equals_brute_force(family: str, overrides: dict[str, Any], depth: int | None) -> None:
    model = tiny_model(family, **overrides)
    scoring_model = scorer(model, depth)
    layout = layout_of(scoring_model, LENGTHS)
    heads = all_heads(model, scoring_model.depth)
    read = log_ratios(scoring_model, layout, heads).flatten(0, 1)  # [L * H, S]
    expected = brute_force.late(model, layout, offset=OFFSET)[:depth].flatten(0, 1)
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


@pytest.mark.parametrize("question", [3, 2 + TARGET_ROWS, 3 * TARGET_ROWS])
def test_spans_equal_brute_force(question: int) -> None:
    model = tiny_model()
    scoring_model = scorer(model)
    layout = layout_of(scoring_model, [40], question=question)
    heads = all_heads(model, scoring_model.depth)
    [keys] = exact_keys(scoring_model, layout, heads)
    spans = [(0, 40), (7, 9), (39, 40), (0, 8)]
    read = question_of(scoring_model, layout, heads).log_ratios(keys, spans).flatten(0, 1)
    parts = [SourcePart(0, start, end) for start, end in spans]
    expected = brute_force.late(model, layout, offset=OFFSET, parts=parts).flatten(0, 1)
    assert (read - expected).abs().max() <= 1e-4


def test_spans_of_a_source_sum_up_to_it_for_a_single_target_token() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, [40], question=3)
    heads = all_heads(tiny_model(), model.depth)
    [keys] = exact_keys(model, layout, heads)
    spans = [(0, 7), (7, 8), (8, 33), (33, 40), (0, 40)]
    *parts, whole = question_of(model, layout, heads).log_ratios(keys, spans).exp().unbind(-1)
    torch.testing.assert_close(sum(parts), whole)


def test_an_empty_span_has_the_least_log_ratio() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, [40])
    heads = all_heads(tiny_model(), model.depth)
    [keys] = exact_keys(model, layout, heads)
    question = question_of(model, layout, heads)
    for spans in ([(5, 5), (0, 40)], [(0, 3), (40, 40)]):
        assert (question.log_ratios(keys, spans) == -50).any(-1).all()


def test_tokens_of_no_span_change_nothing() -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, [40])
    heads = all_heads(tiny_model(), model.depth)
    [keys] = exact_keys(model, layout, heads)
    other = KeptHeads(keys.levels.clone(), keys.scales)
    other.levels[:, 8:20] = 1e4
    other.levels[:, 22:30] = -1e4
    question = question_of(model, layout, heads)
    few = [(2, 4), (20, 22), (3, 8)]  # fewer than half of the tokens
    many = [*few, (30, 40), (0, 8), (30, 38)]
    for spans in (few, many):
        read = question.log_ratios(keys, spans)
        assert torch.equal(question.log_ratios(other, spans), read)
        by_themselves = [question.log_ratios(keys, [span]) for span in spans]
        torch.testing.assert_close(torch.cat(by_themselves, dim=-1), read)


@pytest.mark.parametrize("level", [1e4, -1e4])
def test_extreme_logits_stay_within_the_limits(level: float) -> None:
    model = scorer(tiny_model())
    layout = layout_of(model, [40])
    heads = all_heads(tiny_model(), model.depth)
    [keys] = exact_keys(model, layout, heads)
    question = question_of(model, layout, heads)
    extreme = KeptHeads(torch.full_like(keys.levels, level), keys.scales)
    read = question.log_ratios(extreme, [(0, 40), (3, 4)])
    assert read.isfinite().all() and read.abs().max() <= 50
