"""Units of chunks: how scores are divided among them, and what is kept of a text."""

from __future__ import annotations

import numpy as np
import pytest

from at2_rag import Chunk, ScoredChunk
from at2_rag.pruning.choice import kept_spans, protected_units
from at2_rag.readout.scores import ChunkScores, divided
from at2_rag.text.chunks import join_spans
from at2_rag.text.units import unit_spans

CHUNKS = [
    Chunk("Four. Five.\nThree. Eight."),
    Chunk(" "),
    Chunk("Five.", title="T"),
    Chunk("S. T."),
]
SPANS = [(0, 0, 5), (0, 6, 11), (0, 12, 18), (0, 19, 25), (2, 0, 5), (3, 0, 5)]


def test_units_are_found_in_order() -> None:
    chunks = [Chunk("One more of those sentences. Take it.\n- a\n- b"), Chunk(" "), Chunk("T.")]
    assert unit_spans(chunks) == [(0, 0, 37), (0, 38, 45), (2, 0, 2)]


def test_a_chunks_share_is_divided_among_its_units() -> None:
    rng = np.random.default_rng(0)
    chunks, units = rng.normal(size=4) * 3, rng.normal(size=6) * 3
    divided_scores = divided(ChunkScores(chunks), units, SPANS)
    shares = np.exp(divided_scores.scores)
    assert shares[:4].sum() == pytest.approx(np.exp(chunks[0]))
    assert shares[:4] / shares[0] == pytest.approx(np.exp(units[:4] - units[0]))
    assert shares[4:] == pytest.approx(np.exp(chunks[[2, 3]]))
    assert divided_scores.probabilities is None
    assert divided(ChunkScores(chunks), units, SPANS, additive=True).scores is units


def test_a_chunks_probability_is_divided_among_its_units() -> None:
    units = np.log([1.0, 3.0, 4.0, 2.0, 5.0, 7.0])
    read = ChunkScores(np.zeros(4), np.array([0.5, 0.9, 0.25, 0.8]))
    divided_scores = divided(read, units, SPANS)
    assert divided_scores.probabilities == pytest.approx([0.05, 0.15, 0.2, 0.1, 0.25, 0.8])
    assert divided_scores.scores == pytest.approx(np.log([0.05, 0.15, 0.2, 0.1, 0.25, 0.8]))
    none = divided(ChunkScores(np.zeros(1), np.array([0.5])), np.zeros(0), [])
    assert none.scores.shape == (0,)
    assert none.probabilities is not None and none.probabilities.shape == (0,)


@pytest.mark.parametrize(
    ("kept", "spans", "text"),
    [
        ([0, 1, 2, 3], {0: None}, "Four. Five.\nThree. Eight."),
        ([3, 0], {0: ((0, 5), (19, 25))}, "Four.\n…\nEight."),
        ([0, 1], {0: ((0, 11),)}, "Four. Five."),
        ([2, 1], {0: ((6, 18),)}, "Five.\nThree."),
        ([4], {2: None}, "Five."),
        ([3, 4, 0, 2], {0: ((0, 5), (12, 25)), 2: None}, "Four.\n…\nThree. Eight."),
        ([], {}, None),
    ],
)
def test_kept_units_are_joined_where_they_are_neighbours(
    kept: list[int], spans: dict[int, tuple[tuple[int, int], ...] | None], text: str | None
) -> None:
    by_chunk = kept_spans([SPANS[number] for number in kept], CHUNKS)
    assert by_chunk == spans
    if text is not None:
        index = next(iter(by_chunk))
        chunk = ScoredChunk(None, 0.0, index, CHUNKS[index].text, spans=by_chunk[index])
        assert chunk.kept_text == text


def test_an_ellipsis_stands_between_what_is_kept_and_nowhere_else() -> None:
    text = "a b c\nd e"
    assert join_spans(text, [(2, 3), (4, 5)], "...") == "b ... c"
    assert join_spans(text, [(4, 5), (6, 7)], "[…]") == "c\n[…]\nd"
    assert join_spans(text, [(0, 1), (4, 5), (8, 9)], "") == "a c\ne"
    assert join_spans(text, [(2, 7)], "…") == "b c\nd"
    assert join_spans(text, [], "…") == ""


def test_a_unit_is_protected_where_it_overlaps() -> None:
    protected = [[(4, 7)], [], [(0, 1)], []]
    assert protected_units(SPANS, protected) == [0, 1, 4]
    assert protected_units(SPANS, [[(5, 6), (18, 19)], [], [], [(4, 5)]]) == [5]
    rng = np.random.default_rng(0)
    for _ in range(200):
        cuts = np.sort(rng.choice(26, size=6, replace=False)).tolist()
        spans = [(cuts[0], cuts[1]), (cuts[2], cuts[3]), (cuts[4], cuts[5])]
        expected = [
            number
            for number, (index, start, end) in enumerate(SPANS)
            if index == 0 and any(first < end and start < last for first, last in spans)
        ]
        assert protected_units(SPANS, [spans, [], [], []]) == expected
