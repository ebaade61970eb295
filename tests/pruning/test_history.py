"""Earlier turns of a conversation: what the model reads of them, and what they can't change."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from at2_rag import AT2Pruner, InputError
from at2_rag.pruning.request import Turn
from at2_rag.text.chunks import as_chunk
from tests.independent_reading import read
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact, random_weights, shortlist_weights, tiny_pruner

QUERY = "and who wrote it?"
HISTORY = ["What is Emma about?", "Emma is about a matchmaker."]
CHUNKS = [
    "The river flows through the old town to the sea.",
    "Jane Austen wrote Emma in 1815.",
    "The bridge was opened in 1932.",
]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def pruner(model: Any) -> AT2Pruner:
    return tiny_pruner(random_weights(model, tiny_tokenizer(), "late", "together", "apart"))


def scores(result: Any) -> dict[int, float]:
    return {chunk.index: chunk.score for chunk in (*result.kept, *result.dropped)}


def test_the_question_attends_to_the_turns_and_alone_is_the_target(model: Any) -> None:
    weights = random_weights(model, tiny_tokenizer(), "together")
    pruner = exact(tiny_pruner(weights))
    prompts = pruner.scoring_model.prompts
    layout = prompts.independent(QUERY, [as_chunk(chunk, 0) for chunk in CHUNKS], HISTORY)
    shown = tiny_tokenizer().decode(layout.question_ids)
    assert shown == "Earlier: " + "\n".join(HISTORY) + "\nQuestion: " + QUERY
    together, _ = read(pruner.scoring_model, layout)
    by_hand = [
        weights.bias + float((weights.weight[0] * together.log().numpy()[..., source]).sum())
        for source in range(len(CHUNKS))
    ]
    found = scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=HISTORY))
    assert [found[index] for index in range(3)] == pytest.approx(by_hand, abs=1e-4)


def test_a_history_changes_scores_and_a_blank_one_nothing(pruner: AT2Pruner) -> None:
    alone = scores(pruner.prune(QUERY, CHUNKS, top_k=1))
    histories: list[list[Turn]] = [[], ["", " \n"], [{"role": "user", "content": " "}]]
    for history in histories:
        assert scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=history)) == alone
    with_turns = scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=HISTORY))
    assert with_turns != alone
    with_itself = [*HISTORY, f" {QUERY}\n"]
    assert scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=with_itself)) == with_turns


def test_turns_may_be_messages_and_batches_and_loops_take_them(pruner: AT2Pruner) -> None:
    messages = [{"role": "user", "content": HISTORY[0]}, {"role": "a", "content": HISTORY[1]}]
    expected = scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=HISTORY))
    assert scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=messages)) == expected
    awaited = asyncio.run(pruner.aprune(QUERY, CHUNKS, top_k=1, history=iter(messages)))
    assert scores(awaited) == expected
    requests: Any = [(QUERY, CHUNKS, HISTORY), (QUERY, CHUNKS)]
    both = [pruner.prune_batch(requests, top_k=1)]
    both.append(asyncio.run(pruner.aprune_batch(requests, top_k=1)))
    alone = scores(pruner.prune(QUERY, CHUNKS, top_k=1))
    for first, second in both:
        assert scores(first) == pytest.approx(expected, abs=1e-5)
        assert scores(second) == pytest.approx(alone, abs=1e-5)


def test_a_second_reading_has_the_turns_as_well(model: Any) -> None:
    pruner = tiny_pruner(shortlist_weights(model, tiny_tokenizer()))
    with_turns, without = (
        scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=history)) for history in (HISTORY, [])
    )
    assert with_turns != without


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_a_long_history_is_cut_at_its_beginning(reading: Any) -> None:
    pruner = tiny_pruner(reading=reading)
    turns = [f"turn {number} of a long talk" for number in range(900)]
    long = scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=turns))
    assert long == scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=turns[300:]))
    assert long != scores(pruner.prune(QUERY, CHUNKS, top_k=1, history=turns[-2:]))


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
def test_what_is_no_conversation_is_refused(pruner: AT2Pruner, history: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pruner.prune(QUERY, CHUNKS, top_k=1, history=history)
