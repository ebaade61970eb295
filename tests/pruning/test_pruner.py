"""`AT2Pruner` over a tiny random model: scores, what is kept, and what comes back."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from at2_rag import AT2Pruner, Chunk, PruneResult
from at2_rag.options import Order
from at2_rag.prompt.layout import WINDOW_TOKENS
from at2_rag.reading.features import Pass, Quantity
from at2_rag.reading.joint import read_joint
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.chunks import as_chunk
from tests.independent_reading import read
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact, random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS: tuple[Any, ...] = (
    "The river flows through the old town to the sea.",
    {
        "text": "Jane Austen wrote Emma in 1815.",
        "title": "Emma",
        "id": 7,
        "metadata": {"page": [3, 4]},
        "retriever": {"score": 0.25},
    },
    Chunk("The bridge was opened in 1932.", title="Bridge", id="b", metadata={"tags": {"x"}}),
    "It spans the harbour; what is it called?",
    Chunk("Emma"),
)
RENDERED = (
    "The river flows through the old town to the sea.",
    "Emma\nJane Austen wrote Emma in 1815.",
    "Bridge\nThe bridge was opened in 1932.",
    "It spans the harbour; what is it called?",
    "Emma",
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def pruner(model: Any) -> AT2Pruner:
    """Scores far apart, so that no tie or rounding decides a test."""
    weights = random_weights(model, tiny_tokenizer(), "together", "apart")
    return tiny_pruner(weights)


def scores_by_hand(
    model: Any, weights: HeadWeights, query: str, chunks: Sequence[Any]
) -> list[float]:
    """Weights times features of each source, one at a time; a chunk has its best source's."""
    scorer = ScoringModel(model, tiny_tokenizer(), depth=weights.layers)
    views = [as_chunk(chunk, index) for index, chunk in enumerate(chunks)]
    attention: dict[Pass, torch.Tensor] = {}
    if weights.reading == "joint":
        layout = scorer.prompts.joint(query, views)
        attention["joint"] = read_joint(scorer, [layout])[0]
    else:
        layout = scorer.prompts.independent(query, views)
        attention["together"], attention["apart"] = read(scorer, layout)
    best = [-math.inf] * len(chunks)
    for source, owner in enumerate(layout.owners):
        score = weights.bias
        for (number, layer, head), weight in np.ndenumerate(weights.weight):
            name = weights.spec.passes[number]
            mass = float(attention[name][layer, head, source])
            score += float(weight) * (mass if weights.spec.quantity == "mass" else math.log(mass))
        best[owner] = max(best[owner], score)
    return best


# --- scores ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "passes"),
    [
        ("log", ("together", "apart")),
        ("log", ("apart",)),
        ("mass", ("together",)),
        ("log", ("apart", "together")),
        ("log", ("joint",)),
        ("mass", ("joint",)),
    ],
)
def test_scores_are_the_weights_times_the_features(
    model: Any, quantity: Quantity, passes: tuple[Pass, ...]
) -> None:
    weights = random_weights(model, tiny_tokenizer(), *passes, quantity=quantity)
    pruner = exact(tiny_pruner(weights))
    scored = pruner.score(QUERY, CHUNKS)
    expected = scores_by_hand(model, weights, QUERY, CHUNKS)
    assert [s.score for s in scored] == pytest.approx(expected, abs=1e-4)
    assert len({round(s.score, 3) for s in scored}) == len(CHUNKS)


def test_uniform_joint_scores_are_the_mean_attention_of_the_stock_model(model: Any) -> None:
    pruner = tiny_pruner(reading="joint")
    layout = pruner.scoring_model.prompts.joint(QUERY, [as_chunk(c, 0) for c in CHUNKS])
    with torch.no_grad():
        maps = model(torch.tensor([layout.input_ids]), output_attentions=True).attentions
    mean = torch.stack(maps)[:, 0].mean((0, 1))[slice(*layout.target_span)].mean(0)
    expected = [float(mean[start:end].sum()) for start, end in layout.source_spans]
    assert [s.score for s in pruner.score(QUERY, CHUNKS)] == pytest.approx(expected, abs=1e-6)


def test_a_chunk_longer_than_a_window_has_its_best_windows_score(model: Any) -> None:
    weights = random_weights(model, tiny_tokenizer(), "together", "apart")
    pruner = exact(tiny_pruner(weights))
    long = " ".join(f"{number} rivers" for number in range(700))
    chunks = ["before", long, "after"]
    layout = pruner.scoring_model.prompts.independent(QUERY, [Chunk(text) for text in chunks])
    assert max(map(len, layout.source_ids)) == WINDOW_TOKENS
    assert layout.owners.count(1) > 2 and layout.owners.count(0) == layout.owners.count(2) == 1
    expected = scores_by_hand(model, weights, QUERY, chunks)
    assert [s.score for s in pruner.score(QUERY, chunks)] == pytest.approx(expected, abs=1e-4)


def test_scored_chunks_come_in_input_order(pruner: AT2Pruner) -> None:
    scored = pruner.score(QUERY, CHUNKS)
    assert isinstance(scored, tuple)
    assert [s.index for s in scored] == [0, 1, 2, 3, 4]
    assert all(s.chunk is chunk for s, chunk in zip(scored, CHUNKS, strict=True))
    assert [s.text for s in scored] == [text.rpartition("\n")[2] for text in RENDERED]
    assert [s.title for s in scored] == [None, "Emma", "Bridge", None, None]
    assert [s.rendered for s in scored] == list(RENDERED)


# --- what is kept ----------------------------------------------------------------------------


def ranked(pruner: AT2Pruner) -> list[int]:
    scores = [s.score for s in pruner.score(QUERY, CHUNKS)]
    return sorted(range(len(CHUNKS)), key=lambda index: -scores[index])


def kept(result: PruneResult) -> list[int]:
    """Indices kept; kept and dropped together are the caller's own objects, each once."""
    everything = sorted((*result.kept, *result.dropped), key=lambda scored: scored.index)
    assert [scored.index for scored in everything] == list(range(len(CHUNKS)))
    assert all(scored.chunk is CHUNKS[scored.index] for scored in everything)
    return [scored.index for scored in result.kept]


@pytest.mark.parametrize("top_k", [1, 3, 99])
def test_top_k_keeps_the_best(pruner: AT2Pruner, top_k: int) -> None:
    result = pruner.prune(QUERY, CHUNKS, top_k=top_k)
    assert kept(result) == ranked(pruner)[:top_k]
    assert [s.index for s in result.dropped] == ranked(pruner)[top_k:]
    assert {s.index: s.score for s in (*result.kept, *result.dropped)} == pytest.approx(
        {s.index: s.score for s in pruner.score(QUERY, CHUNKS)}, abs=1e-6
    )


def test_of_near_duplicates_one_is_kept_if_asked_for(pruner: AT2Pruner) -> None:
    text = "The council met in the old town hall by the river and spoke of the new bridge for hours"
    near, named = text.replace("the new", "the"), text.replace("bridge", "Bridge of 1894")
    chunks = [text, near, "Another text.", named, ""]
    every = pruner.prune(QUERY, chunks, top_p=1.0)
    assert len(every.kept) == 5
    ranked = [chunk.index for chunk in every.kept]
    if ranked.index(1) < ranked.index(0):  # the longer one says more
        chunks[:2] = [near, text]
    kept = {chunk.index for chunk in pruner.prune(QUERY, chunks, top_p=1.0, max_overlap=0.8).kept}
    assert kept == {0, 2, 3, 4}
    one, other = pruner.prune_batch(
        [(QUERY, chunks), (QUERY, chunks[1:])], top_p=1.0, max_overlap=0.8
    )
    assert {chunk.index for chunk in one.kept} == kept and len(other.kept) == 4
    protected = pruner.prune(QUERY, chunks, top_k=1, protect="Another|^The council")
    assert {0, 1, 2, 3} <= {chunk.index for chunk in protected.kept}


def test_the_best_may_come_last(pruner: AT2Pruner) -> None:
    sentences = {"unit": "sentence", "max_tokens": 60, "max_overlap": None}
    overrides: list[dict[str, Any]] = [{"top_k": 3}, {"max_tokens": 40}, sentences]
    for some in overrides:
        first = pruner.prune(QUERY, CHUNKS, **some)
        last = pruner.prune(QUERY, CHUNKS, **some, order="best_last")
        assert len(first.kept) > 1
        assert last.kept == first.kept[::-1] and last.dropped == first.dropped[::-1]
        contexts = [chunk.rendered for chunk in first.kept[::-1]]
        assert last.context == last.separator.join(contexts)


# --- tokens ----------------------------------------------------------------------------------


def check_tokens(pruner: AT2Pruner, count: Any, separator: str) -> None:
    for order in get_args(Order):
        result = pruner.prune(QUERY, CHUNKS, top_k=3, order=order)
        assert result.tokens_before == count(separator.join(RENDERED))
        context = separator.join(RENDERED[index] for index in kept(result))
        assert result.context == context
        assert result.tokens_after == count(context) < result.tokens_before
    budget = result.tokens_after
    assert pruner.prune(QUERY, CHUNKS, max_tokens=budget).tokens_after <= budget


def test_tokens_of_the_scoring_model_are_the_default(pruner: AT2Pruner) -> None:
    tokenizer = tiny_tokenizer()
    check_tokens(
        pruner, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), "\n\n"
    )


@pytest.mark.parametrize("separator", ["\n\n", " | ", ""])
def test_tokens_of_a_callable_with_the_callers_separator(model: Any, separator: str) -> None:
    pruner = tiny_pruner(token_counter=len, separator=separator)
    check_tokens(pruner, len, separator)


# --- what comes back -------------------------------------------------------------------------


def test_the_callers_chunks_are_carried_through_unchanged(pruner: AT2Pruner) -> None:
    before = copy.deepcopy(CHUNKS)
    result = pruner.prune(QUERY, list(CHUNKS), top_k=5)
    kept(result)
    assert before == CHUNKS
    mapping = next(s for s in result.kept if s.index == 1)
    assert mapping.chunk["retriever"] == {"score": 0.25}
    shown = mapping.to_dict()
    assert (shown["id"], shown["metadata"]) == (7, {"page": [3, 4]})
    assert shown["retriever"] == {"score": 0.25}


def test_timings_are_seconds_of_the_stages(pruner: AT2Pruner, model: Any) -> None:
    timings = pruner.prune(QUERY, CHUNKS, top_k=2).timings
    stages = {"count", "layout", "encode", "question", "select"}
    assert set(timings) == stages | {"total"}
    assert all(timings[stage] > 0 for stage in stages)
    assert sum(timings[stage] for stage in stages) <= timings["total"]
    joint = tiny_pruner(reading="joint")
    expected = {"count", "layout", "joint", "select", "total"}
    assert set(joint.prune(QUERY, CHUNKS, top_k=2).timings) == expected


class CalledTorch(TorchFunctionMode):
    """Notes whether any torch function runs."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = True
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_no_chunks_are_an_empty_result_without_a_model_call(model: Any, reading: Any) -> None:
    pruner = tiny_pruner(reading=reading)
    with CalledTorch() as quiet:
        result = pruner.prune(QUERY, [], top_k=3)
        assert pruner.score(QUERY, iter(())) == ()
    assert (result.kept, result.dropped, result.texts, result.context) == ((), (), (), "")
    assert (result.tokens_before, result.tokens_after, result.error) == (0, 0, None)
    assert set(result.timings) <= {"count", "total"}
    with CalledTorch() as busy:
        pruner.score(QUERY, ["one"])
    assert busy.seen and not quiet.seen


# --- many at once ----------------------------------------------------------------------------


async def test_async_equals_sync(pruner: AT2Pruner) -> None:
    queries = [QUERY, "what is it called?", "where is the sea?"]
    results = await asyncio.gather(*(pruner.aprune(q, CHUNKS, top_k=2) for q in queries))
    for query, result in zip(queries, results, strict=True):
        alone = pruner.prune(query, CHUNKS, top_k=2)
        assert result.query == query
        assert (result.kept, result.dropped) == (alone.kept, alone.dropped)


def test_a_long_question_is_answered_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    weights = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")
    pruner = tiny_pruner(weights)
    prompts = pruner.scoring_model.prompts
    around = len(prompts.independent("a", []).question_ids) - 1
    question = "where does the river flow"
    while (tokens := len(prompts.independent(question, []).question_ids) - around) <= 128:
        assert not pruner.prune(question, ["a river", "a bridge"], top_k=1).notes
        question += " and where"
    [note] = pruner.prune(question, ["a river", "a bridge"], top_k=1).notes
    assert note.startswith(f"The question has {tokens} tokens, more than 128: only its first and")
    assert note in caplog.messages
    joint = tiny_pruner(reading="joint")  # reads all of it
    assert not joint.prune(question, ["a river", "a bridge"], top_k=1).notes
