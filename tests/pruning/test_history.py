"""Earlier turns of a conversation: when a question is read after them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from at2_rag import AT2Pruner, InputError
from at2_rag.pruning.history import Turn, asked_in, refers
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights, tiny_pruner

QUERY = "and who wrote it?"
HISTORY = ["When was Ida published?", "What is Emma about?"]
READ = f"What is Emma about? {QUERY}"
CHUNKS = [
    "The river flows through the old town to the sea.",
    "Jane Austen wrote Emma in 1815.",
    "The bridge was opened in 1932.",
]


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    return tiny_pruner(calibrated_weights(tiny_model(), tiny_tokenizer(), cosine_weight=1.0))


def scores(result: Any) -> dict[int, float]:
    return {chunk.index: chunk.score for chunk in (*result.kept, *result.dropped)}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("and who wrote it?", True),
        ("Why?", True),
        ("How much?", True),
        ("And until when?", True),
        ("how long ago", True),
        ("And the ticket price?", False),  # it may be all that is asked
        ("Where did she go to school", True),
        ("How many of those were sold?", True),
        ("What did the old captain of the ship think about that?", True),
        ("What did the old captain of the ship say about it?", True),
        ("Who wrote Emma?", False),
        ("What is delegation?", False),
        ("when did the prr first begin its service to philadelphia", False),
        ("Which of the ships that left the harbour sank?", False),
        ("Why is Qubes so slow and how can I make it faster?", False),
        ("itinerary of the theme park", False),
        ("谁写了它？", False),  # pronouns are looked for in English alone
        ("Wo kommt der Wein her?", False),
        ("How do I contact IT support?", False),
        ("What is the WHO?", False),
        ("WHO WROTE IT?", True),
        ("How long does it take to renew a passport?", False),
        ("Is it true that Jane Austen wrote Emma?", False),
        ("Did Darwin change his mind?", False),
        ("When did he change his mind?", True),
        ("What did Austen say about it?", True),
        ("?!", False),
    ],
)
def test_what_refers_to_something_before_it(query: str, expected: bool) -> None:
    assert refers(query) is expected


@pytest.mark.parametrize(
    ("query", "history", "read"),
    [
        (QUERY, HISTORY, READ),
        ("Who wrote Emma?", HISTORY, "Who wrote Emma?"),
        (QUERY, ["Who is Emma?", "Is she rich?"], f"Who is Emma? Is she rich? {QUERY}"),
        (QUERY, ["a b c?"] + ["Why?"] * 5, f"Why? Why? Why? {QUERY}"),
        (QUERY, [], QUERY),
        (QUERY, ["", " \n"], QUERY),
        (QUERY, [*HISTORY, f" {QUERY}\n"], READ),
        (
            QUERY,
            [
                {"role": "user", "content": "What is Emma about?"},
                {"role": "assistant", "content": "A matchmaker."},
                {"role": "tool", "content": "{}"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]},
            ],
            READ,
        ),
        (
            QUERY,
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "x"}},
                        {"type": "text", "text": "What is Emma about?"},
                    ],
                }
            ],
            READ,
        ),
        (QUERY, iter([{"content": "What is Emma about?"}]), READ),
    ],
)
def test_a_question_is_read_after_the_one_that_it_refers_to(
    query: str, history: Any, read: str
) -> None:
    assert asked_in(query, history) == read


def test_a_long_question_is_looked_at_in_linear_time() -> None:
    query = "uhr zug bahn " + "him " * 100_000 + "tor"
    assert asked_in(query, HISTORY) == query  # would take minutes


def test_pruning_with_a_history_is_pruning_by_what_is_read(pruner: AT2Pruner) -> None:
    whole = pruner.prune(READ, CHUNKS, top_k=1)
    result = pruner.prune(QUERY, CHUNKS, top_k=1, history=HISTORY)
    assert scores(result) == scores(whole) != scores(pruner.prune(QUERY, CHUNKS, top_k=1))
    assert (result.query, result.answerable) == (QUERY, whole.answerable)
    assert result.notes == (f"The question refers to an earlier one, and was read as {READ!r}.",)
    by_sentence = pruner.prune(QUERY, CHUNKS, max_tokens=9, history=HISTORY)
    assert by_sentence.kept == pruner.prune(READ, CHUNKS, max_tokens=9).kept


def test_batches_and_loops_take_a_history(pruner: AT2Pruner) -> None:
    expected = scores(pruner.prune(READ, CHUNKS, top_k=1))
    awaited = asyncio.run(pruner.aprune(QUERY, CHUNKS, top_k=1, history=HISTORY))
    assert scores(awaited) == expected
    requests: Any = [(QUERY, CHUNKS, HISTORY), (QUERY, CHUNKS)]
    alone = scores(pruner.prune(QUERY, CHUNKS, top_k=1))
    for results in (
        pruner.prune_batch(requests, top_k=1),
        asyncio.run(pruner.aprune_batch(requests, top_k=1)),
    ):
        assert scores(results[0]) == pytest.approx(expected, abs=1e-5)
        assert scores(results[1]) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("What is Emma?", "history is a str; pass a list of turns"),
        ({"content": "a"}, "history is a dict"),
        (3, "history is a int"),
        (["a", 3], r"history\[1\] is 3; pass a string"),
        ([{"role": "user"}], r"history\[0\] is .*whose 'content'"),
        ([{"content": [{"type": "image"}]}], r"history\[0\] is"),
    ],
)
def test_what_is_no_conversation_is_refused(
    pruner: AT2Pruner, history: list[Turn], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pruner.prune(QUERY, CHUNKS, top_k=1, history=history)
