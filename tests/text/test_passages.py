"""Passages of a long text: where they end, and that nothing is lost."""

from __future__ import annotations

import json
import random

import pytest

from at2_rag.text.passages import LEAST_WORDS, MOST_WORDS, passage_spans
from at2_rag.text.scripts import length


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


def test_a_long_line_is_cut_at_the_ends_of_sentences() -> None:
    sentence = f"{words(59)} end. "
    assert passages(sentence * 5) == [sentence * 2, sentence * 2, sentence]
    lines = [f"{words(12)}\n"] * 14  # whose last one would be a passage of 12 words
    assert passages("".join(lines)) == ["".join(lines)]
    long = words(500)
    assert passages(f"{long}\n{long}") == [f"{long}\n", long]


@pytest.mark.parametrize("seed", range(20))
def test_passages_are_all_of_the_text(seed: int) -> None:
    rng = random.Random(seed)
    pieces = ["a b c ", "\n", "\n\n", "\r\n", " \t", "{'x': 1}", words(45), "日本語。"]
    text = "".join(rng.choice(pieces) for _ in range(200))
    cut = passages(text)
    assert "".join(cut) == text
    assert all(length(piece) >= LEAST_WORDS for piece in cut[:-1])


def test_scripts_without_spaces_are_cut() -> None:
    paragraph = "这是一封来自岛上的信。" * 12
    assert passages("\n\n".join([paragraph] * 30)) == [
        *[f"{paragraph}\n\n"] * 29,
        paragraph,
    ]
    assert len(passages(paragraph * 30)) > 9


def test_json_is_cut_between_its_elements() -> None:
    records = [{"id": number, "text": words(50), "tags": ["a", "b"]} for number in range(7)]
    for value in (records, {"count": 7, "results": records, "next": None}):
        for indent in (None, 2):
            text = json.dumps(value, indent=indent)
            cut = passages(text)
            assert "".join(cut) == text and len(cut) == 4
            assert all(
                piece.lstrip().startswith('{"id"' if indent is None else "{") for piece in cut[1:]
            )
            assert sum(piece.count('"id"') for piece in cut) == 7
    assert passages('{"a": [') == ['{"a": [']
    nested = f"[{words(200)!r}, ".replace("'", '"') * 900 + "1" + "]" * 900
    assert json.loads(nested) and "".join(passages(nested)) == nested
    assert passages("[" * 10000 + "]" * 10000) == ["[" * 10000 + "]" * 10000]
