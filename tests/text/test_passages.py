"""Passages of a long text: where they end, and that nothing is lost."""

from __future__ import annotations

import random

import pytest

from at2_rag.text.passages import LEAST_WORDS, MOST_WORDS, passage_spans


def words(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


def passages(text: str) -> list[str]:
    return [text[start:end] for start, end in passage_spans(text)]


def test_paragraphs_are_passages_and_headings_go_with_them() -> None:
    first, second = f"{words(50, 'a')}\n\n", f"Heading\n\n{words(50, 'b')}\n \n\n"
    assert passages(first + second + words(3, "c")) == [first, second, words(3, "c")]
    assert passages("one\n\ntwo\n\nthree") == ["one\n\ntwo\n\nthree"]
    assert passages("") == []


def test_a_long_log_is_cut_at_the_ends_of_lines() -> None:
    lines = [f"{number} {words(9)}\n" for number in range(100)]
    cut = passages("".join(lines))
    assert [piece.count("\n") for piece in cut] == [16, 16, 16, 16, 16, 16, 4]
    assert all(len(piece.split()) <= MOST_WORDS for piece in cut)


def test_a_long_line_stays_whole() -> None:
    long = words(500)
    assert passages(f"{long}\n{long}") == [f"{long}\n", long]


@pytest.mark.parametrize("seed", range(20))
def test_passages_are_all_of_the_text(seed: int) -> None:
    rng = random.Random(seed)
    pieces = ["a b c ", "\n", "\n\n", "\r\n", " \t", "{'x': 1}", words(45), "日本語。"]
    text = "".join(rng.choice(pieces) for _ in range(200))
    cut = passages(text)
    assert "".join(cut) == text
    assert all(len(piece.split()) >= LEAST_WORDS for piece in cut[:-1])
