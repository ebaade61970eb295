"""What a result looks like in a terminal, in a file and as a page."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from at2_rag.report.result_view import passages
from at2_rag.results import PruneResult, ScoredChunk, ScoredSentence
from at2_rag.text.chunks import Chunk
from tests.page_reader import Reader

EMMA = "Emma is a novel. It rained. Jane Austen wrote it."
TABLE = "| a | b |\n| --- | --- |\n| 1 | <script>alert(1)</script> |"


def scored(index: int, likely: float, text: str, title: str | None = None) -> ScoredChunk:
    chunk = Chunk(text, title, id=f"id{index}")
    return ScoredChunk(chunk, 1.0, index, text, title, probability=likely, id=chunk.id)


def sentence(start: int, end: int, likely: float) -> ScoredSentence:
    return ScoredSentence(2, start, end, EMMA[start:end], 1.0, likely)


RESULT = PruneResult(
    query="who <b>wrote</b> Emma?",
    kept=(replace(scored(2, 0.9, EMMA, "Emma"), spans=((0, 16), (28, 49))), scored(0, 0.4, TABLE)),
    dropped=(scored(3, 0.1, "نهر \x1b[31mred\ud800 😀", "النهر"), scored(1, 0.0, "")),
    tokens_before=1234,
    tokens_after=300,
    timings={"total": 1.239},
    notes=("A note & more.",),
    sentences=(sentence(0, 16, 0.3), sentence(17, 27, 0.02), sentence(28, 49, 0.95)),
)


def printed(width: int = 80, encoding: str = "utf-8", **settings: bool) -> str:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    RESULT.show(Console(file=stream, width=width, **settings))  # type: ignore[arg-type]
    stream.flush()
    return written.getvalue().decode(encoding)


def test_a_result_sums_itself_up() -> None:
    assert str(RESULT) == "Kept 2 of 4 chunks, 300 of 1,234 tokens, in 1.24 s."
    assert repr(RESULT) == f"<PruneResult: {RESULT}>"


def test_passages_are_shown_whole_and_cut_where_they_were() -> None:
    rows = list(passages(RESULT))
    assert [row.heading for row in rows] == ["Emma", "id0", "النهر", "id1"]
    assert [row.kept for row in rows] == [True, True, False, False]
    texts = ["".join(piece.text for piece in row.pieces) for row in rows]
    assert texts == [EMMA, TABLE, "نهر \ufffd[31mred\ufffd 😀", ""]
    assert [(piece.text, piece.kept, piece.probability) for piece in rows[0].pieces] == [
        ("Emma is a novel.", True, 0.3),
        (" ", False, None),
        ("It rained.", False, 0.02),
        (" ", False, None),
        ("Jane Austen wrote it.", True, 0.95),
    ]
    assert not any(piece.kept for row in rows[2:] for piece in row.pieces)


def test_a_terminal_strikes_out_what_was_cut() -> None:
    shown = printed(force_terminal=True)
    assert "\x1b[2;9mIt rained.\x1b[0m" in shown
    assert "\x1b[1mJane Austen wrote it.\x1b[0m" in shown
    assert "\x1b[31m" not in shown


def test_a_file_has_brackets_around_what_was_cut() -> None:
    lines = printed().splitlines()
    assert lines[:3] == [RESULT.query, str(RESULT), "A note & more."]
    assert lines[4:6] == [
        "kept    0.90  Emma",
        "  Emma is a novel. [-It rained.-] Jane Austen wrote it.".ljust(80),
    ]


@pytest.mark.parametrize(("width", "encoding"), [(30, "utf-8"), (200, "utf-8"), (80, "latin-1")])
def test_lines_keep_to_the_width_and_the_encoding(width: int, encoding: str) -> None:
    lines = printed(width, encoding).splitlines()
    assert all(Console().render_str(line.replace("[", "(")).cell_len <= width for line in lines)


def test_a_page_loads_nothing_and_escapes_all() -> None:
    page = RESULT.to_html()
    reader = Reader(page)
    assert reader.loads == [] and reader.counts["section"] == 4
    assert "script" not in reader.counts and "b" not in reader.counts
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "A note &amp; more." in page
    assert "<del>It rained.</del>" in page
    assert '<mark style="--likely: 0.47">Jane Austen wrote it.</mark>' in page
    assert "\x1b" not in page
    page.encode()


def test_a_notebook_gets_a_part_of_a_page() -> None:
    part = RESULT._repr_html_()
    assert Reader(part).counts["section"] == 4
    assert "<html" not in part and "<body" not in part and ":root" not in part


def test_a_notebook_keeps_few_of_many_passages() -> None:
    many = replace(RESULT, kept=(), dropped=tuple(scored(index, 0.1, "x") for index in range(40)))
    assert Reader(many._repr_html_()).counts["section"] == 30
    assert "10 more; to_html() shows all." in many._repr_html_()
    assert Reader(many.to_html()).counts["section"] == 40


def test_what_was_not_scored_has_no_number() -> None:
    skipped = replace(RESULT.kept[1], score=float("nan"), probability=None)
    lines = io.StringIO()
    replace(RESULT, kept=(skipped,), dropped=()).show(Console(file=lines, width=80))
    assert "kept    -  id0" in lines.getvalue()


def test_nothing_at_all_can_be_shown() -> None:
    empty = PruneResult("q", (), (), 0, 0)
    assert Reader(empty.to_html()).counts.get("section") is None
    assert str(empty) == "Kept 0 of 0 chunks, 0 of 0 tokens, in 0.00 s."
