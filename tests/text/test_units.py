"""Units of texts: what stays whole, and that nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

from at2_rag.text.units import OPEN_LINES, text_units
from tests.text.test_sentences import check_cover

TABLE = " | 2019 | 2018\nDiscount rate | 4.00% | 3.75%\nGrowth | 3.40% | - - %"
MARKDOWN_TABLE = "| a | b |\n|---|---|\n| 1 | 2 |"
CODE = "```python\nx = 1. y\n\n| not | a table |\n```"
LIST = "- One. Two.\n- Three\n  goes on here.\n\n- Four"


@pytest.mark.parametrize(
    "units",
    [
        ["He came. ", "She went! ", "Why?"],
        ["Before it.\n\n", TABLE.lstrip() + "\n", "After it."],
        ["Rates as follows:\n" + TABLE],
        ["A.\n", MARKDOWN_TABLE + "\n\n", "B."],
        ["So:\n\n" + CODE + "\n", "Next. ", "Last."],
        ["~~~\nnever closed. Really.\n\nno"],
        ["Intro.\n", LIST + "\n\n", "After."],
        ["Steps\n1. Do this. Then that.\n2) And that.\n"],
        ["Text.\n\n", "    int x = 1;\n    return x; // a. b"],
        ["if (x) {\n  y();\n}\n"],
        ["# Early life\n\nShe was born in 1775. ", "She wrote."],
        ["Early life\n==========\nShe was born in 1775. ", "She wrote."],
        ["This line of prose is wrapped\nand ends here. ", "This one\ndoes too."],
        ["简。\n", "它于1815年出版！", "你知道《爱玛》吗？"],
        ["ประโยคหนึ่ง ประโยคสอง\nประโยคสาม"],
        ["- a lone item. ", "And more."],
        ["One | two. ", "Three."],
        ["a\tb\tc\nd\te\tf\n\n", "End."],
    ],
)
def test_units(units: list[str]) -> None:
    text = "".join(units)
    assert [text[start:end] for start, end in text_units(text)] == [unit.strip() for unit in units]


def test_a_text_without_end_marks_is_not_one_unit() -> None:
    assert len(text_units("a line of a poem\n" * 40)) == 40 // (OPEN_LINES + 1)


@pytest.mark.parametrize("text", ["", " \n\t ", "\ud800", "|", "```", "- ", "#", "\u2028"])
def test_odd_texts(text: str) -> None:
    assert [text[start:end] for start, end in text_units(text)] == [text.strip()] * bool(
        text.strip()
    )


def test_every_character_is_in_one_unit() -> None:
    rng = np.random.default_rng(0)
    pieces = ["a b.", " ", "\n", "\n\n", "\t", "|", "- ", "1. ", "```", "    ", ";", "#", "。", "X"]
    pieces += ["\r\n", "\u2028", "\ud800", "{", "word word", "…", "---", "é", "😀"]
    for _ in range(1000):
        text = "".join(rng.choice(pieces, size=rng.integers(30)))
        check_cover(text, text_units(text))


@pytest.mark.parametrize(
    "text",
    [
        "One more sentence. " * 10_000,
        "- item\n" * 20_000,
        "x" * 200_000,
        " " * 100_000 + "x",
        "```\n" * 30_000,
        "- x\n\n\n\n\nplain\n" * 5_000,
    ],
)
def test_work_on_long_texts_is_not_quadratic(text: str) -> None:
    units = text_units(text)  # would take minutes
    assert " ".join(text[start:end] for start, end in units).split() == text.split()
