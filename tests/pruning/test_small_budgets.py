"""A best chunk that alone has more than `max_tokens`: what fits of it, then whatever else fits."""

from __future__ import annotations

import logging
from typing import Any, get_args

import pytest

from at2_rag import AT2Pruner, Chunk
from at2_rag.options import OnError, Order, Unit
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
SHORT = ["It spans the harbour.", "The end."]
LONG = [
    "Jane Austen wrote the novel Emma in 1815. A river flows through the old town to the sea. "
    "Workers opened a bridge in 1932 over the harbour. Emma lives alone in Highbury in winter.",
    "The council met in the town. Nobody knows who was there in 1932. The bridge was too dear.",
]
TABLE = "year | novel | author\n1811 | Sense | Austen\n1815 | Emma | Austen\n1847 | Jane | Bronte"


def make(counter: Any = None, **settings: Any) -> AT2Pruner:
    """Count words, if not by another counter; separators of chunks and sentences are words."""
    counter = counter or (lambda text: len(text.split()))
    weights = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart", seed=6)
    return tiny_pruner(
        weights, token_counter=counter, separator="\n---\n", ellipsis="[cut]", **settings
    )


@pytest.mark.parametrize("most", range(3, 34, 3))
def test_the_best_sentences_that_fit_are_kept_then_other_chunks(most: int) -> None:
    pruner, chunks = make(), [*LONG, *SHORT]
    scores = [one.score for one in pruner.score(QUERY, chunks)]
    best, *others = sorted(range(4), key=lambda index: -scores[index])
    assert len(chunks[best].split()) == 34
    sentences = pruner.score_sentences(QUERY, [chunks[best]])
    kept: list[tuple[int, int]] = []

    def context(spans: list[tuple[int, int]], rest: list[str]) -> int:
        text, end = "", -1
        for first, last in sorted(spans):
            text += " " if first == end + 1 or not text else " [cut] "
            text, end = text + chunks[best][first:last], last
        return len(" --- ".join([text, *rest] if spans else rest).split())

    for one in sorted(sentences, key=lambda one: -one.score):
        if context([*kept, (one.start, one.end)], []) <= most:
            kept.append((one.start, one.end))
    rest: list[int] = []
    for index in others:
        if context(kept, [chunks[i] for i in [*rest, index]]) <= most:
            rest.append(index)
    result = pruner.prune(QUERY, chunks, max_tokens=most)
    assert (
        result.tokens_after
        == len(result.context.split())
        == context(kept, [chunks[i] for i in rest])
    )
    assert [one.index for one in result.kept] == [*([best] if kept else []), *rest]
    for trimmed in result.kept[: bool(kept)]:
        assert trimmed.spans is not None and trimmed.score == pytest.approx(scores[best])
        pieces = [chunks[best][first:last] for first, last in kept]
        assert all(piece in trimmed.kept_text for piece in pieces)
        assert sum(last - first for first, last in trimmed.spans) >= sum(map(len, pieces))
    assert f"has {len(chunks[best].split())} tokens, max_tokens is {most}" in result.notes[0]
    for order in get_args(Order):
        [batched] = pruner.prune_batch([(QUERY, chunks)], max_tokens=most, order=order)
        assert {(one.index, one.spans) for one in batched.kept} == {
            (one.index, one.spans) for one in result.kept
        }


@pytest.mark.parametrize("unit", ["chunk", "sentence"])
def test_of_a_table_the_head_and_the_best_rows_are_kept(unit: Any) -> None:
    pruner, rows = make(), TABLE.split("\n")
    scores = {one.text: one.score for one in pruner.score_sentences(QUERY, [TABLE])}
    best = max(rows[1:], key=scores.__getitem__)
    with_head = [rows[0], best] if best == rows[1] else [rows[0], "[cut]", best]
    for most, lines in ((11, with_head), (10, rows[:2]), (6, rows[:1])):  # what fits
        [kept] = (result := pruner.prune(QUERY, [TABLE], max_tokens=most, unit=unit)).kept
        assert kept.kept_text == "\n".join(lines)
        assert result.tokens_after == len(kept.kept_text.split()) <= most
        assert result.notes == (
            f"The best {unit} alone has 20 tokens, max_tokens is {most}: what fits of it was kept.",
        )
    assert pruner.prune(QUERY, [TABLE], max_tokens=20, unit=unit).kept[0].spans is None


def test_where_nothing_fits_notes_and_log_say_so(caplog: pytest.LogCaptureFixture) -> None:
    pruner = make()
    units: tuple[Unit, Unit] = ("chunk", "sentence")
    for unit in units:
        with caplog.at_level(logging.WARNING, logger="at2_rag"):
            result = pruner.prune(QUERY, LONG, max_tokens=1, unit=unit)
        [note] = result.notes
        assert (result.kept, len(result.dropped)) == ((), 2)
        assert note.startswith("Nothing was kept: the best ") and note.endswith(
            "max_tokens is 1, and nothing else fits."
        )
        [record] = caplog.records
        assert (record.levelname, record.message) == ("WARNING", note)
        caplog.clear()


def test_beside_what_is_protected(caplog: pytest.LogCaptureFixture) -> None:
    pruner, chunks = make(), [*LONG, "A note that must stay."]
    result = pruner.prune(QUERY, chunks, max_tokens=20, protect="must stay")
    assert "A note that must stay." in result.texts and len(result.kept) == 2
    assert "and what is protected have" in result.notes[0] and result.tokens_after <= 20
    assert not caplog.records
    result = pruner.prune(QUERY, chunks, max_tokens=4, protect="must stay")
    assert result.texts == ("A note that must stay.",)


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_titles_and_long_chunks(reading: Any) -> None:
    pruner = tiny_pruner(reading=reading)
    text = " ".join(f"Jane Austen wrote Emma in {year}." for year in range(1800, 1806))
    for most in (12, 40):
        result = pruner.prune(QUERY, [Chunk(text, "Emma, a novel")], max_tokens=most)
        count = len(tiny_tokenizer()(result.context)["input_ids"])
        assert result.tokens_after == count <= most and result.notes
        assert not result.kept or result.context.startswith("Emma, a novel\nJane Austen wrote")


def test_a_failure_of_the_second_reading_is_one_of_scoring() -> None:
    model, passes = tiny_model(), 0

    def fails(*_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes > most:
            raise RuntimeError("out of memory")

    model.get_input_embeddings().register_forward_pre_hook(fails)
    on_errors: tuple[OnError, OnError] = ("keep_all", "raise")
    for on_error in on_errors:
        most, passes = 10**9, 0
        pruner = tiny_pruner(model=model, on_error=on_error)
        pruner.prune(QUERY, LONG, top_k=1)  # the prefix is read
        passes = 0
        pruner.prune(QUERY, LONG, top_k=1)
        most, passes = passes, 0
        if on_error == "raise":
            with pytest.raises(RuntimeError, match="out of memory"):
                pruner.prune(QUERY, LONG, max_tokens=5)
        else:
            result = pruner.prune(QUERY, LONG, max_tokens=5)
            assert len(result.kept) == 2 and result.error == "RuntimeError: out of memory"
        assert passes == most + 1
