"""Protected parts of texts: by patterns, by ranges, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from at2_rag import Chunk
from at2_rag.errors import InputError
from at2_rag.text.protection import protected_spans

CHUNKS = [Chunk("Pay 20 by May 5."), Chunk(""), Chunk("No figure."), Chunk("7")]


def test_a_pattern_protects_its_matches() -> None:
    expected: list[list[tuple[int, int]]] = [[(4, 6), (14, 15)], [], [], [(0, 1)]]
    for pattern in (r"\d+", re.compile(r"\d+")):
        assert protected_spans(CHUNKS, pattern) == expected
    assert protected_spans(CHUNKS, "x*") == [[]] * 4  # empty matches protect nothing
    assert protected_spans(CHUNKS, None) == [[]] * 4


def test_texts_protect_where_they_stand_as_they_are() -> None:
    chunks = [Chunk("Pay $2.50 (2.50 net)."), Chunk("A B a b A B"), Chunk("none")]
    expected = [[(4, 9), (11, 15)], [(0, 3), (8, 11)], []]
    assert protected_spans(chunks, ("$2.5", "2.50", "A B")) == expected
    assert protected_spans(chunks, ["."])[1:] == [[], []], "it is no pattern"
    assert protected_spans(chunks, []) == [[], [], []]


def test_texts_are_sought_in_linear_time() -> None:
    chunk, text = Chunk("a" * 400_000), "a" * 50_000 + "b" + "a" * 50_000
    assert protected_spans([chunk], [text] * 20) == [[]]  # would take hours


def test_ranges_protect_what_they_name() -> None:
    overlapping: dict[Any, Any] = {
        np.int64(3): [(np.int64(0), 1)],
        0: [(4, 9), (0, 3), (8, 10), (5, 6)],
    }
    assert protected_spans(CHUNKS, overlapping) == [[(0, 3), (4, 10)], [], [], [(0, 1)]]


@pytest.mark.parametrize(
    ("protect", "message"),
    [
        ({0: [(5, 900)]}, r"range \(5, 900\) for chunk 0, whose text has 16 characters; pass"),
        ({0: [(-1, 3)]}, r"range \(-1, 3\)"),
        ({0: [(0, 1.5)]}, r"range \(0, 1.5\)"),
        ({0: 7}, r"protect has 7 for chunk 0; pass a list of \(start, end\)"),
        ({True: [(0, 1)]}, "key True"),
        ({4: [(0, 1)]}, "key 4; pass an index of the 4 chunks, from 0"),
        ("(", r"no regular expression: '\('.*re.escape"),
        (re.compile(b"x"), "protect is a Pattern"),
        (7, "protect is a int; pass a regular expression over text, a list of texts, or a mapping"),
        (["a", " "], "protect has ' '; pass texts that aren't blank"),
        (("a", 7), "protect has 7"),
    ],
    ids=str,
)
def test_unusable_protection_is_refused(protect: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        protected_spans(CHUNKS, protect)
