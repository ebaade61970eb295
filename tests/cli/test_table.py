"""The table of a result: what is shown, and that no text can spoil the screen."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from at2_rag.cli.table import print_result, shown
from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk


def scored(index: int, score: float, text: str, title: str | None = None) -> ScoredChunk:
    chunk = Chunk(text, title, id=f"id{index}")
    return ScoredChunk(chunk, score, index, text, title, id=chunk.id)


RESULT = PruneResult(
    query="q",
    kept=(scored(2, 1.5, "Emma is a novel."), scored(0, -0.25, "Second\n\tbest. " * 50, "Title")),
    dropped=(scored(3, 0.5, "שלום 日本語 😀 [bold]x[/bold] :smile:"), scored(1, -12.0, "")),
    tokens_before=12345,
    tokens_after=300,
    timings={"total": 1.239},
    notes=("A note.",),
)


def printed(*, width: int = 80, encoding: str = "utf-8", original_order: bool = False) -> list[str]:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    print_result(RESULT, Console(file=stream, width=width), original_order=original_order)
    stream.flush()
    return written.getvalue().decode(encoding).splitlines()


def test_rows_are_ranked_over_kept_and_dropped() -> None:
    assert [line.split()[0] for line in printed(original_order=True)[2:6]] == ["3", "4", "1", "2"]
    lines = printed()
    assert lines[0].split() == ["Rank", "Score", "Kept", "Title", "Text"]
    assert [line.split()[:4] for line in lines[2:6]] == [
        ["1", "1.500", "yes", "id2"],
        ["2", "0.500", "no", "id3"],
        ["3", "-0.250", "yes", "Title"],
        ["4", "-12.000", "no", "id1"],
    ]
    assert lines[4].endswith("…")
    assert "[bold]x[/bold] :smile:" in lines[3]
    assert lines[6:] == ["Kept 2 of 4 chunks, 300 of 12,345 tokens, in 1.24 s.", "A note."]


def test_lines_keep_to_the_width_and_the_encoding() -> None:
    for width in (30, 200):
        assert all(Console().render_str(line).cell_len <= width for line in printed(width=width))
    assert "???? ??? ? [bold]" in printed(encoding="latin-1")[3]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", ""),
        (" a\r\n\tb\u2028c ", "a b c"),
        ("\x1b[31mred\x07\x00", "\ufffd[31mred\ufffd\ufffd"),
        ("\ud800x", "\ufffdx"),
        ("a\u202eb\u2066c", "a\ufffdb\ufffdc"),
        ("👩‍👩‍👧 שלום", "👩‍👩‍👧 שלום"),
    ],
)
def test_shown_text_is_one_short_harmless_line(text: str, start: str) -> None:
    assert shown(text) == start
    assert len(shown("x" * 10**6)) < 1000
