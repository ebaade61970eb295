"""`prune(unit="sentence")`: chunks trimmed to their relevant units, verbatim."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner, Chunk, PruneResult
from at2_rag.errors import InputError
from at2_rag.text.units import text_units
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS: list[Any] = [
    Chunk(
        "Jane Austen wrote Emma in the year 1815. Some call Emma a novel of manners. "
        "The book was sold in three volumes.",
        title="Emma",
    ),
    " \n",
    "The river flows down to the sea.  Dr. Who crossed it in a boat.\n\n"
    "The bridge fell into the water 😀.",
    {"text": "It spans the harbour.", "id": "h"},
    "Rates:\na | b\n1 | 2\nThe rates fell. They rose.",
]
READINGS = [("together", "apart"), ("together",), ("apart",), ("joint",)]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def make(model: Any, *passes: Any, **options: Any) -> AT2Pruner:
    weights = random_weights(model, tiny_tokenizer(), *(passes or ("together", "apart")))
    return tiny_pruner(weights, model, **options)


def expected_scores(pruner: AT2Pruner, chunks: list[Any]) -> list[tuple[float, int, str]]:
    """Score, chunk and text of every sentence, best first, from separate scores."""
    sentences = pruner.score_sentences(QUERY, chunks)
    expected = []
    for chunk in pruner.score(QUERY, chunks):
        within = [one for one in sentences if one.chunk_index == chunk.index]
        total = np.log(sum(np.exp(one.score) for one in within)) if within else 0.0
        expected += [(chunk.score + one.score - total, chunk.index, one.text) for one in within]
    return sorted(expected, reverse=True)


def pieces(result: PruneResult) -> set[tuple[int, str]]:
    return {
        (one.index, one.text[start:end])
        for one in result.kept
        for start, end in text_units(one.text)
        if one.spans is None or any(first <= start and end <= last for first, last in one.spans)
    }


@pytest.mark.parametrize("passes", READINGS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 4, 50])
def test_the_best_sentences_are_kept(model: Any, passes: tuple[str, ...], count: int) -> None:
    pruner = make(model, *passes)
    chunks = CHUNKS[:4]
    every = expected_scores(pruner, chunks)
    best = every[:count]
    result = pruner.prune(QUERY, chunks, top_k=count, unit="sentence")
    scored = {(one.chunk_index, one.text): one.score for one in result.sentences}
    assert scored == pytest.approx({(index, text): score for score, index, text in every}, abs=1e-5)
    assert pieces(result) == {(index, text) for _, index, text in best}
    assert [one.index for one in result.kept] == list(dict.fromkeys(index for _, index, _ in best))
    scores = [one.score for one in pruner.score(QUERY, chunks)]
    for one in (*result.kept, *result.dropped):
        assert one.chunk is chunks[one.index]
        assert one.score == pytest.approx(scores[one.index], abs=1e-5)
    assert {one.index for one in (*result.kept, *result.dropped)} == set(range(4))
    assert result.tokens_after == len(tiny_tokenizer()(result.context)["input_ids"])


def test_every_kept_character_is_the_sources_own(model: Any) -> None:
    pruner = make(model, ellipsis="[cut]")
    for count in range(1, 12):
        result = pruner.prune(QUERY, CHUNKS, top_k=count, unit="sentence", order="original")
        assert [one.index for one in result.kept] == sorted(one.index for one in result.kept)
        for one in result.kept:
            parts = re.split(r"\s\[cut\]\s", one.kept_text)
            spans = one.spans or ((0, len(one.text)),)
            assert parts == [one.text[start:end] for start, end in spans]
            assert one.rendered.endswith(one.kept_text)
            assert one.rendered in result.context
        assert result.texts == tuple(one.kept_text for one in result.kept)
        [table] = [one.kept_text for one in result.kept if one.index == 4] or [""]
        assert ("a | b" in table) == ("1 | 2" in table) == ("Rates:" in table)


def test_limits_hold_for_units(model: Any) -> None:
    pruner = make(model)
    chunks = CHUNKS[:4]
    everything = pruner.prune(QUERY, chunks, top_p=1, unit="sentence")
    assert all(one.spans is None for one in everything.kept)
    assert [one.index for one in everything.dropped] == [1]  # blank, nothing of it to keep
    ranked = expected_scores(pruner, chunks)
    least = ranked[2][0] - 1e-4
    result = pruner.prune(QUERY, chunks, min_score=least, unit="sentence")
    assert pieces(result) == {(index, text) for _, index, text in ranked[:3]}
    shares = np.exp([score for score, _, _ in ranked])
    mass = shares[:2].sum() / shares.sum()
    result = pruner.prune(QUERY, chunks, top_p=mass - 1e-4, unit="sentence")
    assert pieces(result) == {(index, text) for _, index, text in ranked[:2]}
    for most in (1, 5, 9, 14, 20, 30, 1000):
        result = pruner.prune(QUERY, chunks, max_tokens=most, unit="sentence")
        count = len(tiny_tokenizer()(result.context)["input_ids"])
        assert result.tokens_after == count <= most
        assert bool(result.kept) != bool(result.notes)


def test_what_is_protected_is_kept(model: Any) -> None:
    pruner = make(model)
    result = pruner.prune(QUERY, CHUNKS, top_k=1, unit="sentence", protect="volumes|1 \\| 2")
    kept = {text for _, text in pieces(result)}
    assert {"The book was sold in three volumes.", "Rates:\na | b\n1 | 2"} <= kept
    assert len(kept) == 3  # and the best of the others
    result = pruner.prune(QUERY, CHUNKS, max_tokens=1, unit="sentence", protect={3: [(0, 2)]})
    assert [one.index for one in result.kept] == [3]
    assert result.notes[0].startswith("Only what is protected was kept: ")
    result = pruner.prune(
        QUERY, CHUNKS, max_tokens=30, unit="sentence", protect="novel", order="original"
    )
    assert "Some call Emma a novel of manners." in result.texts[0] and result.tokens_after <= 30
    result = pruner.prune(QUERY, CHUNKS, min_score=1e9, unit="sentence", protect="novel")
    assert result.texts == ("Some call Emma a novel of manners.",)
    assert result.notes[0].startswith("Only what is protected was kept: the best score is ")
    result = pruner.prune(QUERY, CHUNKS, top_k=1, protect="harbour")
    assert {one.index for one in result.kept} > {3} and len(result.kept) == 2
    best = pruner.prune(QUERY, CHUNKS, top_k=2)
    assert pruner.prune(QUERY, CHUNKS, top_k=2, protect="no such text").kept == best.kept


def test_chunks_without_anything_to_keep(model: Any) -> None:
    pruner = make(model)
    result = pruner.prune(QUERY, [" ", "", Chunk("", title="T")], top_k=3, unit="sentence")
    assert result.kept == () and len(result.dropped) == 3
    assert result.notes[0].startswith("Nothing was kept: no chunk has any text")
    assert pruner.prune(QUERY, [], top_k=1, unit="sentence").kept == ()
    one = pruner.prune(QUERY, ["One sentence."], top_k=1, unit="sentence")
    assert one.texts == ("One sentence.",) and one.kept[0].spans is None


def test_ranges_of_one_request_are_refused_for_many(model: Any) -> None:
    with pytest.raises(InputError, match="belong to one request's chunks; pass a regular"):
        make(model).prune_batch([(QUERY, CHUNKS)], top_k=1, protect={0: [(0, 1)]})


@pytest.mark.parametrize("ellipsis", ["", "…", "[...] and so on [...]"])
def test_texts_of_other_scripts_and_line_ends(model: Any, ellipsis: str) -> None:
    texts = [
        "它于1815年出版！你知道吗？是的。",
        "ประโยคหนึ่ง\r\nOne. Two words!\r\nLast one?",
        "x" * 50,
    ]
    pruner = make(model, ellipsis=ellipsis)
    for most in range(1, 80, 4):
        result = pruner.prune(QUERY, texts, max_tokens=most, unit="sentence")
        assert len(tiny_tokenizer()(result.context)["input_ids"]) == result.tokens_after <= most
        for one in result.kept:
            spans = one.spans or ((0, len(one.text)),)
            kept = "".join(one.text[start:end] for start, end in spans)
            assert "".join(one.kept_text.replace(ellipsis, "").split()) == "".join(kept.split())


def test_a_chunk_of_several_windows_is_trimmed() -> None:
    model = tiny_model(max_position_embeddings=400)
    text = (
        "Jane Austen wrote Emma in the year 1815. "
        + "Qxzjk " * 170
        + "q. Some call Emma a novel of manners. Here the story of Emma ends."
    )
    pruner = make(model)
    expected = expected_scores(pruner, [text, "The sea."])
    result = pruner.prune(QUERY, [text, "The sea."], top_k=2, unit="sentence")
    assert pieces(result) == {(index, sentence) for _, index, sentence in expected[:2]}


def test_long_titles_shared_by_sentences_keep_none_of_them_out(model: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        chunks = [
            Chunk(
                " ".join(f"{rng.choice(['Sea', 'Emma', 'Moon'])} number {i}." for i in range(4)),
                title="a very long title indeed " * int(rng.integers(8)),
            )
            for _ in range(4)
        ]
        pruner = make(model)
        ranked = expected_scores(pruner, chunks)
        most = int(rng.integers(20, 300))
        kept: list[tuple[int, str]] = []
        for _, index, text in ranked:  # one by one
            trial = pruner.prune(
                QUERY,
                chunks,
                top_k=1,
                unit="sentence",
                protect=_ranges([*kept, (index, text)], chunks),
                min_score=1e9,
            )
            if trial.tokens_after <= most:
                kept.append((index, text))
        result = pruner.prune(QUERY, chunks, max_tokens=most, unit="sentence", max_overlap=None)
        assert pieces(result) == set(kept)


@pytest.mark.parametrize("chunk_count", [1, 30])
def test_counting_costs_little_at_any_budget(model: Any, chunk_count: int) -> None:
    sentences = [f"Sentence {n} is about Emma alone." for n in range(180)]
    per_chunk = len(sentences) // chunk_count
    chunks = [
        " ".join(sentences[start : start + per_chunk])
        for start in range(0, len(sentences), per_chunk)
    ]
    counted: list[int] = []

    def words(text: str) -> int:
        counted.append(len(text))
        return len(text.split())

    pruner = make(model, token_counter=words)
    for most in (7, 300, 880):
        counted.clear()
        result = pruner.prune(QUERY, chunks, max_tokens=most, unit="sentence")
        assert most - 6 < result.tokens_after <= most
        # Each sentence beside two others, and all of the context now and then.
        assert sum(counted) < 16 * sum(map(len, chunks))


def _ranges(wanted: list[tuple[int, str]], chunks: list[Chunk]) -> dict[int, list[Any]]:
    ranges: dict[int, list[Any]] = {}
    for index, text in wanted:
        start = chunks[index].text.index(text)
        ranges.setdefault(index, []).append((start, start + len(text)))
    return ranges


def test_uniform_weights_add_up_and_are_taken_as_they_are(model: Any) -> None:
    pruner = tiny_pruner(model=model)
    sentences = sorted(pruner.score_sentences(QUERY, CHUNKS[:4]), key=lambda one: -one.score)
    result = pruner.prune(QUERY, CHUNKS[:4], top_k=2, unit="sentence")
    assert pieces(result) == {(one.chunk_index, one.text) for one in sentences[:2]}


def test_a_sentence_that_two_chunks_share_is_kept_once(model: Any) -> None:
    shared = "The bridge over the river was built in the year of the great flood."
    chunks = [
        f"{shared} Emma came there many years later.",
        f"Nobody saw the moon that night. {shared}",
    ]
    pruner = make(model)
    result = pruner.prune(QUERY, chunks, top_p=1.0, unit="sentence")
    assert sum(shared in text for text in result.texts) == 1
    assert "".join(result.texts).count("Emma came there many years later.") == 1
    assert "".join(result.texts).count("Nobody saw the moon that night.") == 1
    every = pruner.prune(QUERY, chunks, top_p=1.0, unit="sentence", max_overlap=None)
    assert sum(shared in text for text in every.texts) == 2
