"""Units of texts: what stays whole, and that nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from at2_rag import Chunk
from at2_rag.text.echo import without_echoes
from at2_rag.text.protection import protected_spans
from at2_rag.text.units import OPEN_LINES, text_units, unit_spans
from at2_rag.wanted import Abandoned, abandoned_by
from tests.text.test_sentences import check_cover

TABLE = " | 2019 | 2018\nDiscount rate | 4.00% | 3.75%\nGrowth | 3.40% | - - %"
MARKDOWN_TABLE = "| a | b |\n|---|---|\n| 1 | 2 |"
CODE = "```python\nx = 1. y\n\n| not | a table |\n```"
YAML = ["name: web\nimage: nginx\nabout: Serves files.\nports:\n  - 80\nrestart: always"]
LIST = "- One. Two.\n- Three\n  goes on here.\n\n- Four"


@pytest.mark.parametrize(
    "units",
    [
        ["Nobody knew when the train would come. ", "Some went home through the rain!"],
        ["Before it.\n\n", TABLE.lstrip() + "\n", "After it."],
        ["Rates as follows:\n" + TABLE],
        ["A.\n", MARKDOWN_TABLE + "\n\n", "B."],
        [
            "So:\n\n" + CODE + "\n",
            "What follows the code comes after it. ",
            "Nothing else is in here now.",
        ],
        ["~~~\nnever closed. Really.\n\nno"],
        ["Intro.\n", LIST + "\n\n", "After."],
        ["Steps\n1. Do this. Then that.\n2) And that.\n"],
        ["Text.\n\n", "    int x = 1;\n    return x; // a. b"],
        ["if (x) {\n  y();\n}\n"],
        [
            "# Early life\n\nShe was born in 1775. She wrote. ",
            "Novels of that time had three volumes.",
        ],
        ["Early life\n====\nAusten was born in 1775. ", "Novels of that time had three volumes."],
        ["A line of this prose is wrapped\nand ends here. ", "Another one of the lines\ndoes too."],
        [
            "《爱玛》是简·奥斯汀的一部长篇小说。它于1815年出版！",
            "你知道是谁把这部小说译成中文的吗？",
        ],
        ["ประโยคหนึ่ง ประโยคสอง\nประโยคสาม"],
        ["- a lone item of a list. ", "Three more of them would make it one."],
        ["One | two are no columns of it. ", "Three more words would not change it."],
        YAML,
        ["name: web\nport: 80\n\n", "name: db\nport: 81\n"],
        ["Text that says what follows below.\n", '{\n"a": 1,\n"b": 2\n}'],
        [
            "<h2>Life</h2><p>Austen was born in 1775.</p>",
            "<p>Novels of that time had three volumes.</p>",
            "<table><tr><td>a. B</td></tr><tr><td>c</td></tr></table>",
            "<ul><li>One. Two</li></ul>",
        ],
        ["<ul>\n<li>A. B\n<ul><li>C</li></ul></li>\n</ul>\n", "After."],
        ["Before it stands a table.\n", "<table><tr><td>cut off. Here"],
        ["a\tb\tc\nd\te\tf\n\n", "End."],
    ],
)
def test_units(units: list[str]) -> None:
    text = "".join(units)
    assert [text[start:end] for start, end in text_units(text)] == [unit.strip() for unit in units]


LONG = "The bridge crosses the harbour at its narrowest point. "


@pytest.mark.parametrize(
    "units",
    [
        [LONG + "It was opened in 1859 by a prince. ", "Trains have crossed the river since then."],
        [LONG + "However, trains have used another one since 1902."],
        [LONG + "After that, trains could cross the river for the first time."],
        [LONG + "Die Stadt nutzt sie. ", "Busse fahren im Winter nur bis zum anderen Ufer."],
        ["Die Brücke überquert den Hafen der Stadt. Sie wurde 1859 von einem König eröffnet."],
        ["Le pont traverse le vieux port de la ville. Il a été ouvert en 1859 par un roi."],
        ["El puente cruza el puerto viejo de la ciudad. Fue inaugurado en 1859 por un rey."],
        ["Мост пересекает старую гавань нашего города. Он был открыт в 1859 году."],
        ["Take one tablet. Never take two at once."],
        ["Note. " + LONG, LONG],
        ["Q: Can I pay by card? A: Cash only. ", "Q: Is it free? A: Not on Sundays."],
        ["Q: Can I pay?\nA: Cash only.\n", "Q: Is it free?\nA: Not on Sundays in the winter.\n"],
        ["## Can I pay by card?\n\n" + LONG + LONG, LONG + "\n", "How do I pay?\n\n- cash\n- card"],
        ["Can I pay by card?\n" + LONG + "\n", "Is it free for children?\n" + LONG],
        ["Can I pay by card?!\n" + LONG + "\n", "Is it free for children?!\n" + LONG],
        ["Question\nCan I pay by card?\n\nAnswer\nCash only.\n\n", "Question\nIs it free?\nYes."],
        ["<p>Can I pay by card?</p><p>Cash only.</p>", "<p>Is it free?</p><p>Yes.</p>"],
        [LONG + "Why? " + LONG, LONG],
        [
            LONG + "It is old. It is red. ",
            "It is big. It was opened in 1859. It is long. ",
            "It fell.",
        ],
        [LONG + "\n\n", "Prices\nCash only."],
    ],
)
def test_sentences_that_need_a_neighbour_are_in_one_unit(units: list[str]) -> None:
    text = "".join(units)
    assert [text[start:end] for start, end in text_units(text)] == [unit.strip() for unit in units]


@pytest.mark.parametrize("letter", "กລཀကកあｱ中㐀𠀀")
def test_letters_of_scripts_without_spaces_are_counted_not_their_words(letter: str) -> None:
    short, long = f"{letter * 6}. ", f"{letter * 12}. "
    assert len(text_units(LONG + long + LONG)) == 3
    assert len(text_units(short + LONG)) == 1 and len(text_units(long + LONG)) == 2


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
        "k: v\n" * 40_000,
        "<ul><li>" * 25_000,
        "Why?\n" * 40_000,
        "    \n" * 100_000 + "x",
        "k: v\n" + "    \n" * 100_000 + "x",
        "k: v\n x\n" * 40_000,
    ],
)
def test_work_on_long_texts_is_not_quadratic(text: str) -> None:
    units = text_units(text)  # would take minutes
    assert " ".join(text[start:end] for start, end in units).split() == text.split()


@pytest.mark.parametrize(
    "work",
    [
        unit_spans,
        lambda chunks: without_echoes("Who wrote it?", chunks),
        lambda chunks: protected_spans(chunks, "a"),
    ],
)
def test_work_on_a_texts_parts_ends_once_nobody_wants_it(
    work: Callable[[Sequence[Chunk]], object],
) -> None:
    unwanted = threading.Event()
    with abandoned_by(unwanted):
        work([Chunk("a")])
        unwanted.set()
        with pytest.raises(Abandoned):
            work([Chunk("a")])
