"""What a pruner does when scoring fails: raise, or keep every chunk and say so."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch

from at2_rag import AT2Pruner, Chunk
from at2_rag.errors import ChunkTypeError, InputError, PromptTooLongError, ScoringError
from tests.tiny_models import tiny_model
from tests.tiny_weights import tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS: tuple[Any, ...] = (
    {"text": "Jane Austen wrote Emma.", "title": "Emma", "id": 1, "rank": 9},
    "The river flows to the sea.",
    Chunk("It spans the harbour.", id="b"),
    "The river flows to the sea.",
)
CONTEXT = (
    "Emma\nJane Austen wrote Emma.\n\nThe river flows to the sea.\n\nIt spans the harbour.\n\n"
    "The river flows to the sea."
)


def make(model: Any, **options: Any) -> AT2Pruner:
    return tiny_pruner(model=model, token_counter=len, **options)


@pytest.fixture(scope="module")
def broken() -> Any:
    """A model whose embeddings are NaN, as those of an overflow are."""
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    return model


@pytest.fixture(scope="module")
def narrow() -> Any:
    """A model that reads 320 tokens."""
    return tiny_model(max_position_embeddings=320)


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_scores_that_are_not_numbers_raise(broken: Any, reading: Any) -> None:
    pruner = make(broken, reading=reading)
    with pytest.raises(ScoringError, match=r"4 of 4 scores.*float32"):
        pruner.prune(QUERY, CHUNKS, top_k=2)
    with pytest.raises(ScoringError):
        pruner.score(QUERY, CHUNKS)


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_keep_all_keeps_everything_says_so_and_logs_once(
    broken: Any, reading: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pruner = make(broken, reading=reading, on_error="keep_all")
    with caplog.at_level(logging.DEBUG, logger="at2_rag"):
        result = pruner.prune(QUERY, CHUNKS, top_k=1, max_tokens=3)
    assert [scored.index for scored in result.kept] == [0, 1, 2, 3]
    assert all(s.chunk is chunk for s, chunk in zip(result.kept, CHUNKS, strict=True))
    assert all(math.isnan(scored.score) for scored in result.kept)
    assert result.dropped == ()
    assert result.context == CONTEXT
    assert result.tokens_before == result.tokens_after == len(CONTEXT)
    assert result.error is not None and result.error.startswith("ScoringError: 4 of 4 scores")
    assert result.notes == ("Scoring failed, so that all 4 chunks were kept, unranked.",)
    assert result.timings["total"] > 0
    [record] = caplog.records
    assert (record.name, record.levelname) == ("at2_rag.pruner", "ERROR")
    assert record.exc_info is not None and record.exc_info[0] is ScoringError


def test_a_joint_prompt_too_long_gives_both_numbers(narrow: Any) -> None:
    chunks = [f"{CHUNKS[1]} {number}" for number in range(30)]
    pruner = make(narrow, reading="joint")
    prompts = make(tiny_model(), reading="joint").scoring_model.prompts
    length = len(prompts.joint(QUERY, [Chunk(text) for text in chunks]).input_ids)
    with pytest.raises(PromptTooLongError, match=f"{length} tokens.*takes 320;.*independent"):
        pruner.prune(QUERY, chunks, top_k=3)
    kept = make(narrow, reading="joint", on_error="keep_all").prune(QUERY, chunks, top_k=3)
    assert kept.error is not None and "PromptTooLongError" in kept.error
    assert list(kept.texts) == chunks
    assert len(make(narrow).prune(QUERY, chunks, top_k=3).kept) == 3


def test_after_a_failure_the_next_call_works(narrow: Any) -> None:
    pruner = make(narrow, reading="joint", on_error="keep_all")
    assert pruner.prune(QUERY, ["river " * 500], top_k=1).error
    result = pruner.prune(QUERY, CHUNKS, top_k=1)
    assert (result.error, result.notes, len(result.kept)) == (None, (), 1)


@pytest.mark.parametrize(
    ("query", "chunks", "limits", "error"),
    [
        (QUERY, CHUNKS, {}, InputError),
        (QUERY, CHUNKS, {"top_k": 0}, InputError),
        (" ", CHUNKS, {"top_k": 1}, InputError),
        (QUERY, "one long string", {"top_k": 1}, InputError),
        (QUERY, [None], {"top_k": 1}, ChunkTypeError),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_unusable_arguments_raise_in_either_case(
    broken: Any, query: Any, chunks: Any, limits: dict[str, Any], error: type[Exception]
) -> None:
    for on_error in ("raise", "keep_all"):
        with pytest.raises(error):
            make(broken, on_error=on_error).prune(query, chunks, **limits)


async def test_keep_all_holds_in_batches_and_async_but_not_for_scores(broken: Any) -> None:
    pruner = make(broken, on_error="keep_all")
    for result in (
        await pruner.aprune(QUERY, CHUNKS, top_k=1),
        *pruner.prune_batch([(QUERY, CHUNKS)] * 2, top_k=1),
    ):
        assert len(result.kept) == 4 and result.error
    with pytest.raises(ScoringError):
        pruner.score(QUERY, CHUNKS)
