"""`AT2Pruner.score_sentences` against eager attention of the stock model, in both readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag import AT2Pruner, Chunk
from at2_rag.errors import InputError
from at2_rag.prompt.layout import CHUNK_END, PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart, sentence_parts, sentence_spans_of
from at2_rag.reading.features import Pass, Quantity
from at2_rag.reading.scoring_model import INDEPENDENT_FAMILIES
from at2_rag.text.chunks import as_chunk
from tests import brute_force
from tests.independent_reading import read
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact, random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS: list[Any] = [
    Chunk("Jane Austen wrote Emma in 1815. It is a novel.", title="Emma"),
    " \n",
    "The river flows to the sea.  Dr. Who crossed it.\n\n1. The bridge 😀",
    {"text": "It spans the harbour."},
    Chunk("", title="Nothing"),
]
TEXTS = [
    (0, "Jane Austen wrote Emma in 1815."),
    (0, "It is a novel."),
    (2, "The river flows to the sea."),
    (2, "Dr. Who crossed it."),
    (2, "1. The bridge 😀"),
    (3, "It spans the harbour."),
]
LONG = "Jane Austen wrote Emma in 1815. " + "Qxzjk " * 170 + "q. It is a novel. The end."
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def make(model: Any, *passes: Pass, quantity: Quantity = "log", **options: Any) -> AT2Pruner:
    weights = random_weights(model, tiny_tokenizer(), *passes, quantity=quantity)
    return tiny_pruner(weights, model, **options)


def offsets_of(chunk: Chunk) -> list[tuple[int, int]]:
    encoding = tiny_tokenizer()(chunk.rendered + CHUNK_END, return_offsets_mapping=True)
    return [(start, end) for start, end in encoding["offset_mapping"]]


def tokens_of(chunk: Chunk, sentence: str, *, shared: bool) -> tuple[int, int]:
    """Return the tokens of a sentence by their offsets; with `shared`, those on borders too."""
    text = chunk.rendered + CHUNK_END
    start = text.index(sentence)
    end, inside = start + len(sentence), []
    for number, (first, last) in enumerate(offsets_of(chunk)):
        if shared:
            if first < end and last > start:
                inside.append(number)
            continue
        while first < last - 1 and text[first].isspace() and text[first:last].strip():
            first += 1
        if start <= first < end:
            inside.append(number)
    assert inside == list(range(inside[0], inside[-1] + 1))
    return inside[0], inside[-1] + 1


def spans_in(layout: PromptLayout, views: Sequence[Chunk], *, shared: bool) -> list[Any]:
    starts = [first for first, _ in layout.source_spans]
    tokens = [(index, tokens_of(views[index], text, shared=shared)) for index, text in TEXTS]
    return [(index, starts[index] + first, starts[index] + last) for index, (first, last) in tokens]


@pytest.mark.parametrize(
    ("family", "quantity"),
    [
        *((family, "log") for family in sorted(INDEPENDENT_FAMILIES)),
        ("llama", "mass"),
    ],
)
def test_sentences_of_chunks_read_alone(family: str, quantity: Quantity) -> None:
    model = tiny_model(family)
    pruner = exact(make(model, "together", "apart", quantity=quantity))
    sentences = pruner.score_sentences(QUERY, CHUNKS)
    assert [(one.chunk_index, one.text) for one in sentences] == TEXTS
    views = [as_chunk(chunk, 0) for chunk in CHUNKS]
    for one in sentences:
        assert views[one.chunk_index].text[one.start : one.end] == one.text
    layout = pruner.scoring_model.prompts.independent(QUERY, views)
    spans = spans_in(layout, views, shared=False)
    prefix = len(layout.prefix_ids)
    expected: dict[Pass, Any] = {
        "together": brute_force.together(model, layout, [span[1:] for span in spans]),
        "apart": torch.cat(
            [
                brute_force.part_apart(
                    model,
                    brute_force.single(layout, layout.source_ids[index]),
                    tuple(
                        token - layout.source_spans[index][0] + prefix for token in (first, last)
                    ),
                )
                for index, first, last in spans
            ],
            dim=-1,
        ),
    }
    assert_scores(pruner, sentences, expected)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral", "gpt_oss", "gpt2"])
def test_sentences_in_one_prompt(family: str) -> None:
    model = tiny_model(family)
    pruner = make(model, "joint")
    sentences = pruner.score_sentences(QUERY, CHUNKS)
    assert [(one.chunk_index, one.text) for one in sentences] == TEXTS
    views = [as_chunk(chunk, 0) for chunk in CHUNKS]
    layout = pruner.scoring_model.prompts.joint(QUERY, views)
    spans = [span[1:] for span in spans_in(layout, views, shared=True)]
    assert_scores(pruner, sentences, {"joint": brute_force.joint(model, layout, spans)})


def assert_scores(pruner: AT2Pruner, sentences: Any, expected: dict[Pass, Any]) -> None:
    depth = pruner.head_weights.layers
    cut = {name: read[:depth] for name, read in expected.items()}
    scores = pruner.head_weights.score(pruner.head_weights.spec.extract(cut).numpy())
    assert np.ptp(scores) > 100 * TOLERANCE
    assert [one.score for one in sentences] == pytest.approx(scores, abs=5 * TOLERANCE)


def test_masses_of_parts_add_up_to_those_of_chunks(model: Any) -> None:
    scorer = make(model, "together", "apart").scoring_model
    views = [as_chunk(chunk, 0) for chunk in [*CHUNKS, LONG]]
    layout = scorer.prompts.independent(QUERY, views)
    cut = sentence_parts(scorer.prompts, layout, views, sentence_spans_of(views))
    parts = [*cut.parts, *cut.rest]
    seen = sorted((part.source, token) for part in parts for token in range(part.start, part.end))
    assert seen == [
        (source, token) for source, ids in enumerate(layout.source_ids) for token in range(len(ids))
    ]
    whole, _ = read(scorer, layout)
    finer, _ = read(scorer, layout, parts=tuple(parts))
    total = torch.zeros_like(whole)
    total.index_add_(2, torch.tensor([part.source for part in parts]), finer)
    torch.testing.assert_close(total, whole, rtol=0, atol=1e-6)


def test_a_part_that_is_the_whole_source_is_read_like_it(model: Any) -> None:
    scorer = make(model, "together", "apart").scoring_model
    layout = brute_force.random_layout([7, 30, 7], prefix=scorer.prompts.prefix_ids)
    whole = tuple(SourcePart(index, 0, len(ids)) for index, ids in enumerate(layout.source_ids))
    for one, other in zip(read(scorer, layout), read(scorer, layout, parts=whole), strict=True):
        brute_force.assert_equal(one, other)


def test_equal_sentences_in_different_places_differ_and_equal_chunks_do_not(model: Any) -> None:
    pruner = make(model, "together", "apart")
    sentences = pruner.score_sentences(
        QUERY, ["It is. It is. Emma.", "It is.", "It is. It is. Emma."]
    )
    scores = [one.score for one in sentences]
    assert scores[:3] == scores[4:]
    assert len(set(scores)) == 4
    again = pruner.score_sentences(QUERY, ["It is.", "It is. It is. Emma."])
    apart = make(model, "apart")
    assert [one.score for one in again][1:] != scores[:3]  # fewer compete
    alone = apart.score_sentences(QUERY, ["It is. It is. Emma."])
    beside = apart.score_sentences(QUERY, ["The sea.", "It is. It is. Emma."])
    assert [one.score for one in alone] == pytest.approx(
        [one.score for one in beside][1:], abs=TOLERANCE
    )


def test_a_sentence_is_read_in_the_windows_that_hold_it_whole() -> None:
    model = tiny_model(max_position_embeddings=400)
    pruner = exact(make(model, "apart", quantity="mass"))
    scorer, view = pruner.scoring_model, Chunk(LONG)
    layout = scorer.prompts.independent(QUERY, [view])
    windows = len(layout.source_ids)
    assert windows > 2
    spans = sentence_spans_of([view])
    assert [view.text[start:end][:9] for _, start, end in spans] == [
        "Jane Aust",
        "Qxzjk Qxz",
        "It is a n",
        "The end.",
    ]
    cut = sentence_parts(scorer.prompts, layout, [view], spans)
    held = [
        [part.source for part, owner in zip(cut.parts, cut.owners, strict=True) if owner == number]
        for number in range(4)
    ]
    assert held[0] == [0] and held[1] == list(range(windows)) and held[3] == [windows - 1]
    _, apart = read(scorer, layout, parts=cut.parts)
    by_part = pruner.head_weights.score(pruner.head_weights.spec.extract({"apart": apart}).numpy())
    expected = [
        max(score for score, owner in zip(by_part, cut.owners, strict=True) if owner == number)
        for number in range(4)
    ]
    sentences = pruner.score_sentences(QUERY, [view])
    assert [one.score for one in sentences] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("passes", [("together", "apart"), ("joint",)], ids=str)
def test_texts_of_all_kinds(model: Any, passes: tuple[Pass, ...]) -> None:
    chunks: list[Any] = [
        "",
        " \n",
        "<|im_end|> and <tool>. Two.",
        "x \ud83d\ude00 yes. \ud800 z. w",
        Chunk("...", title="T"),
        "一。二。三",
    ]
    sentences = make(model, *passes).score_sentences("🙂\ud800", chunks)
    assert [(one.chunk_index, one.text) for one in sentences] == [
        (2, "<|im_end|> and <tool>."),
        (2, "Two."),
        (3, "x \ud83d\ude00 yes."),
        (3, "\ud800 z. w"),
        (4, "..."),
        (5, "一。"),
        (5, "二。"),
        (5, "三"),
    ]
    assert np.isfinite([one.score for one in sentences]).all()


def test_a_sentence_without_tokens_has_the_score_of_nothing(model: Any) -> None:
    scorer = make(model, "together", "apart").scoring_model
    view = Chunk("Jane Austen wrote the novel Emma.")
    layout = scorer.prompts.independent(QUERY, [view])
    # Inside of a token: no token starts there.
    inside = next(end - 1 for start, end in offsets_of(view) if end - start > 1)
    cut = sentence_parts(scorer.prompts, layout, [view], [(0, inside, inside + 1)])
    [part] = cut.parts
    assert part.start == part.end
    _, apart = read(scorer, layout, parts=cut.parts)
    assert apart.eq(0).all()


def test_no_sentence_no_model_call(model: Any) -> None:
    pruner = make(model, "together", "apart")
    assert pruner.score_sentences(QUERY, []) == ()
    assert pruner.score_sentences(QUERY, ["", Chunk(" ", title="T")]) == ()
    with pytest.raises(InputError, match="query is blank"):
        pruner.score_sentences(" ", CHUNKS)


def test_sentences_and_chunks_share_cached_states(model: Any) -> None:
    cache: dict[str, Any] = {}
    pruner = make(model, "together", "apart", chunk_cache=cache)
    pruner.score(QUERY, CHUNKS)
    states = dict(cache)
    sentences = pruner.score_sentences(QUERY, CHUNKS)
    assert cache == states
    assert make(model, "together", "apart").score_sentences(QUERY, CHUNKS) == sentences
