"""Sentences as spans: where texts are split, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from at2_rag.text.sentences import sentence_spans

BORDERS = Path(__file__).with_name("borders.txt")


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Smith met J. K. Rowling at 5 p.m. on Jan. 5.", "They spoke (e.g. about Emma)."],
        ["It cost $3.50!", '"Really?" he said.', "Version 3.5.1 is out.", "See www.example.com."],
        ["He left (at last).", "“Why?”", "Nobody knows…", "No end"],
        ["A.B. vs. U.S. Army won.", "Yes."],
        ["كتبت جين أوستن رواية إيما.", "هل تعرف ذلك؟", "نعم."],
        ["राम घर गया।", "वह सो गया।"],
        ["Wow 😀!", "Great 👩‍👩‍👧."],
        ["x \ud800 lone.", "Second \ude00\ud83d."],
    ],
)
def test_sentences_between_spaces(sentences: list[str]) -> None:
    text = "  " + "  ".join(sentences) + " "
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("它于1815年出版！你知道《爱玛》吗？", ["它于1815年出版！", "你知道《爱玛》吗？"]),
        ("これは本です。「本当に？」そう！", ["これは本です。", "「本当に？」", "そう！"]),
        ("Old.\n\n1. One\r\n2. Two. B.\n- a", ["Old.", "1. One", "2. Two.", "B.", "- a"]),
        ("---\nHello.\n***\nYou. 😀", ["---\nHello.\n***", "You. 😀"]),
        ("a\u2028b", ["a", "b"]),
        ("<p>One. Two.</p><p>Dr. B</p><br/>", ["<p>One.", "Two.</p>", "<p>Dr. B</p><br/>"]),
        ('<a title="A. B">It</a> is. (C. D.) E.', ['<a title="A. B">It</a> is.', "(C. D.) E."]),
        ("!!! ???", ["!!! ???"]),
        ("", []),
        (" \n\t", []),
    ],
)  # fmt: skip
def test_sentences_of_lists_and_scripts(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


@pytest.mark.parametrize(
    "sentence",
    [
        *("See Eq. 4 first", "See Sec. 5.2 first", "Under Art. 12 it is", "Call Tel. 030 now"),
        *("Smith v. Jones was quoted", "Many Ph.D. Students came", "Np. Kraków jest stary"),
        *("Das ist z. B. Bremen", "Es sind u. a. Firmen", "Er kam am 3. Mai 1998", "3. Mai 1998"),
        *("Im 2. Weltkrieg fiel sie", "La Sra. López vino", "Vive en EE. UU. Norte", "См. рис. 5"),
        *("De Dhr. Jansen kwam", "Bylo to 5. Května", "「雨が降る。風も吹く。」とのこと"),
    ],
)
def test_no_sentence_is_cut(sentence: str) -> None:
    assert sentence_spans(sentence) == ((0, len(sentence)),)


def test_borders_in_many_languages() -> None:
    """Nearly all borders are found, and next to none where there is no border."""
    lines = [line for line in BORDERS.read_text(encoding="utf-8").splitlines()[1:] if line]
    borders = right = wrong = 0
    for line in lines:
        marked = line.partition("\t")[2]
        ends = set(accumulate(map(len, marked.split("¦")[:-1])))
        split = {end for _, end in sentence_spans(marked.replace("¦", ""))[:-1]}
        borders, right = borders + len(ends), right + len(ends & split)
        wrong += len(split - ends)
    assert len({line.partition("\t")[0] for line in lines}) >= 40 and borders >= 270
    assert right >= 0.96 * borders and wrong <= 2


def check_cover(text: str, spans: Sequence[tuple[int, int]]) -> None:
    """Check that each character but white space between spans is in exactly one of them."""
    last = 0
    for start, end in spans:
        assert last <= start < end <= len(text)
        assert not text[last:start].strip()
        assert text[start:end] == text[start:end].strip()
        last = end
    assert not text[last:].strip()


def test_every_character_is_in_one_sentence() -> None:
    rng = np.random.default_rng(0)
    alphabet = list("ab .!?。\n\r\t1😀\ud800\udc00،؟’\"')(-_\u200b\u3000Dr|।\u0300\x00\x1f\x85")
    for _ in range(1000):
        text = "".join(rng.choice(alphabet, size=rng.integers(40)))
        check_cover(text, sentence_spans(text))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("-" * 100_000 + " A. B." * 20_000, 1),
        ("a! " + "! " * 100_000, 1),
        ("\n-" * 100_000 + " a", 1),
        ("1. One. " * 20_000, 20_000),
        (" " * 100_000 + "a" + "." * 100_000, 1),
        ("「" + "。」問" * 300_000, 1),
    ],
    ids=range(6),
)
def test_work_on_long_texts_is_not_quadratic(text: str, count: int) -> None:
    assert len(sentence_spans(text)) == count  # would take minutes
