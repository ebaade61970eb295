"""Many questions in the same passes of the model: the results of one by one, in fewer calls."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from at2_rag import AT2Pruner, ChunkCache
from at2_rag.errors import InputError, PromptTooLongError, PrunerBusyError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.pruning import scorer as scorer_module
from at2_rag.reading.late import TARGET_TOKENS
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.chunks import Chunk, as_chunk
from tests.independent_reading import CountingModel
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact, random_weights, tiny_pruner

TEXTS = [f"The river {number} flows to the sea. " * (1 + number % 4) for number in range(12)]
QUERY = "where does the river flow?"
REQUESTS: list[tuple[str, list[Any]]] = [
    ("who wrote the novel Emma?", TEXTS[:5]),
    ("where does the river flow?", TEXTS[3:9]),
    ("where?", [TEXTS[0]]),
    ("who built the bridge of the old town, and when?", [*TEXTS[8:], TEXTS[8], ""]),
    ("nothing to prune?", []),
]


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")


def counted(pruner: AT2Pruner) -> list[int]:
    """Note the tokens of each of a pruner's model calls from now on."""
    model = CountingModel(tiny_model())
    pruner.scoring_model.run = model.run  # type: ignore[method-assign]
    return model.passes


def layouts_of(pruner: AT2Pruner) -> list[PromptLayout]:
    """Return how the requests that have chunks are laid out."""
    return [
        pruner.scoring_model.prompts.independent(query, [as_chunk(chunk, 0) for chunk in chunks])
        for query, chunks in REQUESTS
        if chunks
    ]


def assert_like_one_by_one(pruner: AT2Pruner, **limits: Any) -> None:
    results = pruner.prune_batch(REQUESTS, **limits)
    for result, (query, chunks) in zip(results, REQUESTS, strict=True):
        expected = pruner.prune(query, chunks, **limits)
        for ours, theirs in ((result.kept, expected.kept), (result.dropped, expected.dropped)):
            assert [(one.index, one.spans) for one in ours] == [
                (one.index, one.spans) for one in theirs
            ]
            scores = [one.score for one in theirs]
            assert [one.score for one in ours] == pytest.approx(scores, abs=1e-5)
        for name in ("query", "tokens_before", "tokens_after"):
            assert getattr(result, name) == getattr(expected, name)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    "limits",
    [
        {"top_k": 2},
        {"max_tokens": 25, "order": "original"},
        {"top_k": 3, "unit": "sentence", "max_overlap": None},
    ],
    ids=str,
)
def test_independent(weights: HeadWeights, stored: bool, limits: dict[str, Any]) -> None:
    pruner = tiny_pruner(weights)
    assert_like_one_by_one(pruner if stored else exact(pruner), **limits)


@pytest.mark.parametrize("unit", ["chunk", "sentence"])
def test_joint(unit: str) -> None:
    pruner = tiny_pruner(reading="joint")
    assert_like_one_by_one(pruner, top_k=2, unit=unit)
    passes = counted(pruner)
    pruner.prune_batch(REQUESTS, top_k=1, unit=unit)  # type: ignore[arg-type]
    assert len(passes) == 1


def test_a_family_with_learned_positions() -> None:
    assert_like_one_by_one(tiny_pruner(model=tiny_model("gpt2")), top_k=2)


def test_all_questions_take_one_call(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights, chunk_cache=ChunkCache())
    pruner.index(TEXTS)
    pruner.index([""])
    passes = counted(pruner)
    pruner.prune_batch(REQUESTS, top_k=1, unit="sentence")
    assert len(passes) == 1, "whole chunks and their sentences"
    passes.clear()
    pruner.prune_batch(REQUESTS, top_k=1)
    layouts = layouts_of(pruner)
    rows = [len(one.question_ids) * (1 + len(set(one.source_ids))) for one in layouts]
    assert passes == [sum(rows)], (
        "each question once over all its chunks, and over each different one"
    )


def test_without_a_cache_shared_chunks_are_read_once(weights: HeadWeights) -> None:
    pruner = exact(tiny_pruner(weights))
    passes = counted(pruner)
    pruner.prune_batch(REQUESTS, top_k=1)
    sources = {ids for one in layouts_of(pruner) for ids in one.source_ids}
    assert len(passes) == 2, "one over the chunks, one over the questions"
    assert passes[0] == sum(map(len, sources))


def test_large_requests_are_not_in_memory_together(
    weights: HeadWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "GROUP_TOKENS", 1)
    pruner = tiny_pruner(weights, chunk_cache=ChunkCache())
    assert_like_one_by_one(pruner, top_k=2)
    passes = counted(pruner)
    pruner.prune_batch(REQUESTS, top_k=1)
    assert len(passes) == 4


def test_a_group_is_bounded_by_what_the_model_reads(weights: HeadWeights) -> None:
    """Not by what the caller's counter says, and with the copies of a long question."""
    pruner = exact(tiny_pruner(weights, token_counter=lambda text: 1))
    long = " and ".join(["where does the river flow"] * 60) + "?"
    passes = counted(pruner)
    pruner.prune_batch([(long, TEXTS) for _ in range(20)], top_k=1)
    layout = pruner.scoring_model.prompts.independent(long, list(map(Chunk, TEXTS)))
    question, sources = len(layout.question_ids), sum(map(len, set(layout.source_ids)))
    short = len(pruner.scoring_model.prompts.independent("a", []).question_ids) - 1 + TARGET_TOKENS
    assert short < question
    rows = question + short * len(TEXTS)
    assert 20 * rows > 2 * scorer_module.GROUP_TOKENS, "too many for one group"
    assert sum(passes) >= 20 * rows
    assert passes.count(sources) == math.ceil(20 / (scorer_module.GROUP_TOKENS // rows))


def test_joint_prompts_are_grouped_by_their_padded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "GROUP_TOKENS", 700)
    pruner = tiny_pruner(reading="joint")
    requests = [(QUERY, TEXTS[:1])] * 5 + [(QUERY, TEXTS)] + [(QUERY, TEXTS[:1])] * 5
    passes = counted(pruner)
    results = pruner.prune_batch(requests, top_k=1)
    views = [as_chunk(text, 0) for text in TEXTS]
    longest = len(pruner.scoring_model.prompts.joint(QUERY, views).input_ids)
    short = len(pruner.scoring_model.prompts.joint(QUERY, views[:1]).input_ids)
    assert 10 * short < 700 < 11 * longest
    assert sorted(passes) == [longest, 10 * short], "nothing short is padded to the long one"
    assert [len(one.kept) + len(one.dropped) for one in results] == [1] * 5 + [12] + [1] * 5


def test_each_has_its_part_of_the_time(weights: HeadWeights) -> None:
    start = time.perf_counter()
    results = tiny_pruner(weights).prune_batch(REQUESTS, top_k=2)
    elapsed = time.perf_counter() - start
    stages = {"count", "layout", "encode", "question", "select"}
    for result in results[:4]:
        assert set(result.timings) == stages | {"total"}
        assert result.timings["total"] >= sum(result.timings[stage] for stage in stages)
        assert result.timings["question"] == results[0].timings["question"]
    assert sum(one.timings["total"] for one in results) <= elapsed


def test_no_time_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of contexts that aren't scored, requests by themselves, and those that fail."""
    monkeypatch.setattr(scorer_module, "GROUP_TOKENS", 1)

    def slow(text: str) -> int:
        time.sleep(0.01)
        return len(text.split())

    options: Any
    for options in ({}, {"skip_below_tokens": 9999}):
        pruner = tiny_pruner(token_counter=slow, on_error="keep_all")
        if options:
            pruner.scoring_model.run = None  # type: ignore[method-assign,assignment]
        start = time.perf_counter()
        results = pruner.prune_batch([*REQUESTS, ("where? " * 3000, TEXTS)], top_k=1, **options)
        assert sum(one.timings["total"] for one in results) <= time.perf_counter() - start
        assert all(one.timings["total"] > 0.01 for one in results[:4])


def test_a_context_without_a_token() -> None:
    pruner = tiny_pruner(token_counter=lambda text: 0)
    every: list[dict[str, Any]] = [{"top_k": 1}, {"max_tokens": 5}]
    for limits in every:
        for texts in ([""], ["", "   "], TEXTS[:2]):
            result = pruner.prune(QUERY, texts, **limits)
            assert result.scored and len(result.kept) >= 1
            assert pruner.prune_batch([(QUERY, texts)], **limits)[0].kept == result.kept


def test_small_contexts_in_a_batch() -> None:
    results = tiny_pruner().prune_batch(REQUESTS, top_k=1, skip_below_tokens=12)
    assert [one.skipped for one in results] == [False, False, True, False, False]
    assert len(results[1].kept) == 1 and len(results[4].kept) == 0


def test_one_that_fails_does_not_take_the_others_along(caplog: pytest.LogCaptureFixture) -> None:
    long = "where does the river flow? " * 40
    requests = [REQUESTS[0], (long, TEXTS[:2]), REQUESTS[1]]
    small = {"model": tiny_model(max_position_embeddings=400)}
    with pytest.raises(PromptTooLongError):
        tiny_pruner(**small).prune_batch(requests, top_k=1)
    results = tiny_pruner(**small, on_error="keep_all").prune_batch(requests, top_k=1)
    assert [one.error is None for one in results] == [True, False, True]
    assert [len(one.kept) for one in results] == [1, 2, 1]
    assert all(math.isnan(one.score) for one in results[1].kept)
    expected = tiny_pruner(**small).prune(*REQUESTS[1], top_k=1).kept[0]
    assert results[2].kept[0].index == expected.index
    assert "scoring failed, all 2 chunks are kept" in caplog.text


def test_what_is_refused_before_any_model_call() -> None:
    pruner = tiny_pruner()
    passes = counted(pruner)
    limits: Any
    for requests, limits in (
        (REQUESTS, {}),
        (REQUESTS, {"top_k": 0}),
        ([REQUESTS[0], (" ", TEXTS)], {"top_k": 1}),
        ([REQUESTS[0], ("q", "text")], {"top_k": 1}),
    ):
        with pytest.raises(InputError):
            pruner.prune_batch(requests, **limits)
    with pytest.raises(TypeError, match="there is no option 'top'"):
        pruner.prune_batch(REQUESTS, top=1)  # type: ignore[call-arg]
    assert passes == []
    assert pruner.prune_batch([], top_k=1) == []


async def test_a_batch_that_finds_the_pruner_busy_keeps_all_or_raises() -> None:
    for on_error in ("keep_all", "raise"):
        pruner = tiny_pruner(max_pending=1, on_error=on_error)
        running = asyncio.create_task(pruner.aprune(QUERY, [text * 50 for text in TEXTS], top_k=1))
        await asyncio.sleep(0)
        if on_error == "raise":
            with pytest.raises(PrunerBusyError):
                await pruner.aprune_batch(REQUESTS, top_k=1)
        else:
            results = await pruner.aprune_batch(iter(REQUESTS), top_k=1)
            assert [result.query for result in results] == [query for query, _ in REQUESTS]
            for result, (_, chunks) in zip(results, REQUESTS, strict=True):
                assert len(result.kept) == len(list(chunks)) and not result.dropped
                assert result.error is not None or not chunks
        await running
