"""A shortlist: all chunks are read late, and only a few of them by the other passes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from at2_rag import AT2Pruner, Chunk, HeadWeights
from at2_rag.arrays import Floats
from at2_rag.progress import Stopwatch
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart, sentence_parts, sentence_spans_of
from at2_rag.pruning.features import LaidOut, TextFeatures, independent_features
from at2_rag.pruning.scorer import tokens_read
from at2_rag.reading.features import Pass
from at2_rag.reading.late import OFFSET
from at2_rag.readout.multi_hop import MultiHop
from at2_rag.text.units import unit_spans
from tests import brute_force
from tests.independent_reading import CountingModel
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact, random_weights, shortlist_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
TEXTS = [
    f"The river {number} flows. Emma {number} is a novel." * (1 + number % 3)
    for number in range(12)
]
EIGHT_BITS = 0.1


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return shortlist_weights(tiny_model(), tiny_tokenizer())


@pytest.fixture(scope="module")
def pruner(weights: HeadWeights) -> AT2Pruner:
    return exact(tiny_pruner(weights))


def counted(pruner: AT2Pruner) -> list[int]:
    """Note the tokens of each of a pruner's model calls from now on."""
    model = CountingModel(tiny_model())
    pruner.scoring_model.run = model.run  # type: ignore[method-assign]
    return model.passes


@pytest.mark.parametrize(("unit", "copies"), [("chunk", 1 + 3), ("sentence", 2 + 3 + 6)])
def test_what_is_read_is_known_before(unit: Any, copies: int) -> None:
    """The question is read late, then together and apart over three chunks, and two units each."""
    towns = (
        f"The {'long ' * 20}river {n} flows. Emma {n} is a {'fine ' * 20}novel."
        for n in ("one", "two", "six", "ten", "red", "sad")
    )
    chunks = [Chunk(text) for text in towns]
    weights = shortlist_weights(tiny_model(), tiny_tokenizer(), least=3, most=3)
    pruner = exact(tiny_pruner(weights))
    passes = counted(pruner)
    pruner.prune(QUERY, chunks, top_k=1, unit=unit)
    layout = pruner.scoring_model.prompts.independent(QUERY, chunks)
    units = unit_spans(chunks) if unit == "sentence" else ()
    assert len(units) in (0, 12)
    question, sources = len(layout.question_ids), sum(map(len, layout.source_ids))
    known = tokens_read(weights, layout, units)
    assert known == sources + question * (1 + copies)
    # Late reading ends with the question's last content word.
    assert known - question < sum(passes) <= known


def late_scores(weights: HeadWeights, pruner: AT2Pruner, texts: list[str]) -> list[float]:
    """Return what the shortlist's weights say of chunks, by late weights alone."""
    assert weights.shortlist is not None
    late = replace(
        random_weights(tiny_model(), tiny_tokenizer(), "late"),
        weight=weights.shortlist.weight[None],
        bias=weights.shortlist.bias,
    )
    return [one.score for one in exact(tiny_pruner(late)).score(QUERY, texts)]


def shortlisted(weights: HeadWeights, scores: list[float]) -> list[int]:
    """Return the chunks within the gap of the best, at least two and at most three of them."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    near = [index for index in order if scores[index] >= scores[order[0]] - 0.5]
    return sorted(order[: min(3, max(2, len(near)))])


def only(layout: PromptLayout, sources: list[int]) -> PromptLayout:
    """Return the layout with some sources only."""
    ids = tuple(layout.source_ids[source] for source in sources)
    return replace(layout, source_ids=ids, owners=tuple(range(len(ids))))


def read(pruner: AT2Pruner, chunks: list[Chunk], units: Any = ()) -> TextFeatures:
    reader, layout = pruner._scorer._reader, layout_of(pruner, chunks)
    assert reader is not None
    texts = [LaidOut(layout, chunks, units)]
    [features] = independent_features(reader, pruner.head_weights, texts, {}, Stopwatch())
    return features


def layout_of(pruner: AT2Pruner, chunks: list[Chunk]) -> PromptLayout:
    return pruner.scoring_model.prompts.independent(QUERY, chunks)


def assert_equal(features: Floats, name: Pass, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Assert that a pass, in features [S, F] of three, agrees on two layers."""
    number = ("late", "together", "apart").index(name)
    read = features.reshape(len(features), 3, 2, -1)[:, number].transpose(1, 2, 0)
    log = expected if name == "late" else expected.log()
    assert np.abs(read - log[:2].numpy()).max() <= tolerance


def unread(features: Floats) -> list[bool]:
    """Return for each row of features whether all passes but the late one didn't read it."""
    late, others = np.split(np.isnan(features), [features.shape[1] // 3], axis=1)
    assert not late.any() and (others.all(1) == others.any(1)).all()
    return [bool(row.all()) for row in others]


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_features_equal_brute_force(count: int, pruner: AT2Pruner, weights: HeadWeights) -> None:
    model, texts = tiny_model(), TEXTS[:count]
    chunks = [Chunk(text) for text in texts]
    layout = layout_of(pruner, chunks)
    chosen = shortlisted(weights, late_scores(weights, pruner, texts))
    features = read(pruner, chunks).chunks
    late = brute_force.late(model, layout, offset=OFFSET)
    assert_equal(features, "late", late, EIGHT_BITS)
    few = only(layout, chosen)
    assert_equal(features[chosen], "together", brute_force.together(model, few))
    assert_equal(features[chosen], "apart", brute_force.apart(model, few))
    assert unread(features) == [index not in chosen for index in range(count)]


def test_scores_of_chunks_on_and_beside_the_shortlist() -> None:
    weights = shortlist_weights(tiny_model(), tiny_tokenizer(), least=3)
    assert weights.shortlist is not None
    pruner = exact(tiny_pruner(weights))
    features = read(pruner, [Chunk(text) for text in TEXTS]).chunks
    late = np.split(features, 3, axis=1)[0] @ weights.shortlist.weight.ravel() + 0.25
    chosen = np.argsort(-late)[:3]
    every = features @ weights.weight.ravel() + weights.bias
    expected = np.where(np.isin(np.arange(12), chosen), every, 0.5 * late - 1.0)
    assert [one.score for one in pruner.score(QUERY, TEXTS)] == pytest.approx(expected, abs=1e-4)


def test_all_chunks_on_the_shortlist_are_as_without_one(weights: HeadWeights) -> None:
    every = shortlist_weights(tiny_model(), tiny_tokenizer(), least=12, most=12)
    pruner = exact(tiny_pruner(every))
    plain = exact(tiny_pruner(replace(every, shortlist=None)))
    scores = [one.score for one in plain.score(QUERY, TEXTS)]
    assert [one.score for one in pruner.score(QUERY, TEXTS)] == pytest.approx(scores, abs=1e-3)


def test_all_windows_of_a_shortlisted_chunk_are_read() -> None:
    weights = shortlist_weights(tiny_model(), tiny_tokenizer(), least=1, most=1)
    assert weights.shortlist is not None
    pruner = tiny_pruner(weights, model=tiny_model(max_position_embeddings=400))
    pruner = exact(pruner)
    long = " ".join(f"{number} rivers" for number in range(90))
    chunks = [Chunk(long), Chunk("Emma"), Chunk(long + " and the sea")]
    features, owners = read(pruner, chunks).chunks, layout_of(pruner, chunks).owners
    late = np.split(features, 3, axis=1)[0] @ weights.shortlist.weight.ravel()
    best = owners[int(late.argmax())]
    assert owners.count(best) > 1 or best == 1
    assert unread(features) == [owner != best for owner in owners]


# --- sentences -------------------------------------------------------------------------------


def test_sentences_equal_brute_force(pruner: AT2Pruner, weights: HeadWeights) -> None:
    model, chunks = tiny_model(), [Chunk(text, "Emma") for text in TEXTS[:5]]
    units = sentence_spans_of(chunks)
    features, layout = read(pruner, chunks, units).units, layout_of(pruner, chunks)
    parts = sentence_parts(pruner.scoring_model.prompts, layout, chunks, units).parts
    titled = [f"Emma\n{one}" for one in TEXTS[:5]]
    chosen = shortlisted(weights, late_scores(weights, pruner, titled))
    on = [index for index, part in enumerate(parts) if part.source in chosen]
    assert 0 < len(on) < len(parts)
    late = brute_force.late(model, layout, offset=OFFSET, parts=parts)
    assert_equal(features, "late", late, EIGHT_BITS)
    few = only(layout, chosen)
    moved = [replace(parts[index], source=chosen.index(parts[index].source)) for index in on]
    expected: dict[Pass, Tensor] = {
        "together": brute_force.together(model, few, [span_in(few, part) for part in moved]),
        "apart": torch.cat(
            [
                brute_force.part_apart(model, alone, span_in(alone, replace(part, source=0)))
                for part in moved
                for alone in [brute_force.single(layout, few.source_ids[part.source])]
            ],
            dim=-1,
        ),
    }
    for name, truth in expected.items():
        assert_equal(features[on], name, truth)
    assert unread(features) == [index not in on for index in range(len(parts))]


def span_in(layout: PromptLayout, part: SourcePart) -> tuple[int, int]:
    start = layout.source_spans[part.source][0]
    return start + part.start, start + part.end


def test_units_only_in_chunks_that_are_not_shortlisted(
    pruner: AT2Pruner, weights: HeadWeights
) -> None:
    chosen = shortlisted(weights, late_scores(weights, pruner, TEXTS))
    other = next(index for index in range(12) if index not in chosen)
    chunks = [Chunk(text) for text in TEXTS]
    features = read(pruner, chunks, [(other, 0, len(TEXTS[other]))]).units
    assert features.shape == (1, pruner.head_weights.weight.size) and unread(features) == [True]


# --- what is read ----------------------------------------------------------------------------


def test_a_cold_call_reads_each_chunk_once_and_a_warm_one_none(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    layout = pruner.scoring_model.prompts.independent(QUERY, list(map(Chunk, TEXTS)))
    question, sources = len(layout.question_ids), sum(map(len, layout.source_ids))
    chosen = shortlisted(weights, late_scores(weights, pruner, TEXTS))
    late, over_states = layout.rows[-1] + 1, question * (1 + len(chosen))
    passes = counted(pruner)
    cold = pruner.score(QUERY, TEXTS)
    assert passes == [len(layout.prefix_ids), late, sources, over_states]
    passes.clear()
    assert pruner.score(QUERY, TEXTS) == cold
    assert passes == [late, over_states]


def test_indexed_chunks_are_read_again_only_if_shortlisted(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    pruner.index(TEXTS)
    layout = pruner.scoring_model.prompts.independent(QUERY, list(map(Chunk, TEXTS)))
    chosen = shortlisted(weights, late_scores(weights, pruner, TEXTS))
    passes = counted(pruner)
    pruner.score(QUERY, TEXTS)
    question = len(layout.question_ids)
    few = sum(len(layout.source_ids[index]) for index in chosen)
    assert passes == [layout.rows[-1] + 1, few, question * (1 + len(chosen))]


def test_a_question_that_is_read_again_reads_no_chunk_again(weights: HeadWeights) -> None:
    second = np.ones(weights.weight.shape[1:], np.float32)
    again = replace(weights, multi_hop=MultiHop(second, 0.5, (0.2, 0.7, 0.3)))
    pruner, texts = tiny_pruner(again), TEXTS[:6]
    passes = counted(pruner)
    cold = pruner.prune(QUERY, texts, top_k=5, multi_hop=True)
    sources = sum(map(len, pruner.scoring_model.prompts.windows(list(map(Chunk, texts)))[0]))
    assert passes[2] == sources and len(passes) == 5, "prefix, question, chunks, question twice"
    passes.clear()
    warm = pruner.prune(QUERY, texts, top_k=5, multi_hop=True)
    assert len(passes) == 3 and sum(passes) < sources
    assert [chunk.score for chunk in warm.kept] == [chunk.score for chunk in cold.kept]


@pytest.mark.parametrize("unit", ["chunk", "sentence"])
def test_batches_equal_single_calls(weights: HeadWeights, unit: Any) -> None:
    requests: list[tuple[str, list[str]]] = [
        (QUERY, TEXTS),
        ("where does the river flow?", TEXTS[3:9]),
        ("where?", TEXTS[:1]),
        ("nothing?", []),
        ("what is it called?", [*TEXTS[:4], "", TEXTS[0]]),
    ]
    pruner = tiny_pruner(weights)
    for _, chunks in requests:  # the same states in all calls
        pruner.index(chunks)
        pruner.score(QUERY, chunks)
    limits: Any = {"top_k": 4, "unit": unit}
    for _ in range(2):
        results = pruner.prune_batch(requests, **limits)
        for result, request in zip(results, requests, strict=True):
            expected = pruner.prune(*request, **limits)
            assert [(one.index, one.spans) for one in result.kept] == [
                (one.index, one.spans) for one in expected.kept
            ]
            scores = [one.score for one in (*expected.kept, *expected.dropped)]
            ours = [one.score for one in (*result.kept, *result.dropped)]
            assert ours == pytest.approx(scores, abs=1e-4)


def test_chunks_with_equal_text_tie_on_and_beside_the_shortlist(weights: HeadWeights) -> None:
    pruner = tiny_pruner(
        shortlist_weights(tiny_model(), tiny_tokenizer(), least=2, most=2, gap=0.0)
    )
    alone = [one.score for one in pruner.score(QUERY, TEXTS)]
    late = late_scores(weights, pruner, TEXTS)
    best = int(np.argmax(late))
    texts = [*TEXTS, TEXTS[best], *TEXTS[:best], *TEXTS[best + 1 :]]
    scores = [one.score for one in pruner.score(QUERY, texts)]
    assert scores[best] == scores[12]
    others = scores[:best] + scores[best + 1 : 12]
    assert others == scores[13:]
    assert scores[best] != alone[best], "its copy competes"


def test_the_order_of_chunks_changes_no_score(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    scores = [one.score for one in pruner.score(QUERY, TEXTS)]
    backwards = [one.score for one in pruner.score(QUERY, TEXTS[::-1])]
    assert backwards[::-1] == scores


def test_weights_are_saved_with_their_shortlist(
    weights: HeadWeights, model_folder: Path, tmp_path: Path
) -> None:
    weights.save(tmp_path)
    pruner = AT2Pruner.from_pretrained(model_folder, dtype="float32", head_weights=tmp_path)
    expected = [one.score for one in tiny_pruner(weights).score(QUERY, TEXTS)]
    assert [one.score for one in pruner.score(QUERY, TEXTS)] == expected
    again: AT2Pruner = pickle.loads(pickle.dumps(pruner))
    assert [one.score for one in again.score(QUERY, TEXTS)] == expected
