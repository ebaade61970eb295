"""Texts that stand in others, against hand-worked cases and brute force."""

from __future__ import annotations

import random
import re
import textwrap

import pytest

from at2_rag.selection.novelty import Containment
from at2_rag.text.chunks import Chunk

LONG = "The council met in the old town hall by the river and spoke of the new bridge for hours."


def is_new(text: str | Chunk, *others: str | Chunk, least_words: int = 1) -> bool:
    chunks = [Chunk(one) if isinstance(one, str) else one for one in (*others, text)]
    novelty = Containment(chunks.__getitem__, least_words=least_words)
    for index in range(len(others)):
        novelty.take(index)
    holder = novelty.holder(len(others))
    assert holder is None or holder < len(others)
    return holder is None


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"  {LONG}\n\n",
        LONG.replace(" ", "\n"),
        textwrap.fill(LONG, 20),
        LONG.removesuffix("."),
        "met in the old town hall by the river",  # eight words, as in a window
        LONG.lower().removesuffix("."),
        LONG.upper(),
    ],
)
def test_what_stands_in_another_text_is_not_new(text: str) -> None:
    assert is_new(text) and is_new(text, "Something else.")
    for other in (LONG, f"It rained. {LONG}", f"{LONG} It rained.", f"Minutes\n{LONG}\nFees"):
        assert not is_new(text, "Something else.", other)


@pytest.mark.parametrize(
    "other",
    [
        LONG.replace("river", "lake"),
        LONG.replace("river", "River"),
        LONG.replace("for hours", "for 7 hours"),
        LONG.replace("hall", "hall,"),
        LONG.replace(".", "?"),
        LONG.replace("hours.", "hours unless it rained."),
        LONG.replace("met", "never met"),
        f"Nobody believes it. Or that {LONG[0].lower()}{LONG[1:]}",
        " ".join(LONG.split()[:12]),
        "",
    ],
)
def test_a_text_that_says_one_thing_more_or_another_is_new(other: str) -> None:
    assert is_new(LONG, other) and is_new(LONG, "", other, other)


def test_windows_are_held_by_one_text_not_by_several() -> None:
    words = LONG.split()
    first, second, middle = " ".join(words[:14]), " ".join(words[4:]), " ".join(words[4:14])
    assert is_new(LONG, first, second)
    assert not is_new(middle, first) and not is_new(middle, second)


PAIRS = [
    "The museum is opened on Mondays <> The museum is closed on Mondays",
    "Turn left at the red house <> Turn right at the red house",
    "Pay before the course begins <> Pay after the course begins",
    "the invoice is paid <> the invoice is unpaid",
    "It holds unless it rains <> It holds as long as it rains",
    "Smoking is allowed <> No smoking is allowed",
    "No, smoking is allowed <> No smoking is allowed",
    "The pool is open <> The pool is open only to members",
    "The bridge is safe <> It is not true that The bridge is safe",
    "Die Tür ist offen <> Die Tür ist zu",
    "Er hat liebe Genossen <> Er hat Liebe genossen",
    "Abierto los lunes <> Cerrado los lunes",
    "казнить нельзя, помиловать <> казнить, нельзя помиловать",
    "支持退款 <> 不支持退款",
    "可以退款 <> 可以退款吗",
    "会议在北京举行。 <> 会议在上海举行。",
    "営業しています <> 営業していません",
    "ประชุมที่กรุงเทพ <> ประชุมที่เชียงใหม่",
    "ไม่ <> ไม้",
    "مفتوح يوم الاثنين <> مغلق يوم الاثنين",
    "राम और सीता था <> राम और सीता थी",
    "US law applies <> us law applies",
    "The balance is -500 euros <> The balance is 500 euros",
    "growth was +5 percent <> growth was -5 percent",
    "the version is 1.5 <> the version is 11.5",
    "the version is 1.5 <> the version is 1.57",
    "at > 5 bar <> at < 5 bar",
    "It costs 5 % more <> It costs 5 more",
    "written in C <> written in C++",
    "written in C++ <> written in C#",
    "x = a-b <> x = a+b",
    "x = 1 <> x == 1",
    "f(a, **b) <> f(a, b)",
    "!done <> done",
    "x /= 2 <> x = 2",
    "| a | b | <> | a / b |",
    "if x:\n    a()\n    b() <> if x:\n    a()\nb()",
]


@pytest.mark.parametrize("pair", PAIRS)
def test_one_word_or_sign_makes_another_text(pair: str) -> None:
    one, other = pair.split(" <> ")
    for start, end in (
        ("", ""),
        ("", "."),
        ("Well, ", "."),
        ("It has been known for years. ", "."),
    ):
        for text, changed in ((one, other), (other, one)):
            text, changed = start + text + end, start + changed + end
            assert is_new(text, changed) and not is_new(text, changed, text)
            # In the middle of more text.
            assert is_new(text + " And so on.", changed + " And so on.", f"{changed} Before that.")


def test_sentences_and_lines_of_other_scripts_are_held() -> None:
    assert not is_new("支持退款。", "我们很好。支持退款。")
    assert not is_new("你好吗？", "他来了。你好吗？我很好。")
    assert not is_new("会议在北京举行，\n明天结束。", "会议在北京举行，明天结束。")
    assert not is_new("राम आया।", "सुबह हुई। राम आया। शाम हुई।")
    assert not is_new("مفتوح", "مفتوح\nمغلق")
    assert not is_new("| 1 | 2 |", "| a | b |\n| 1 | 2 |\n| 3 | 4 |")


def test_how_quotes_and_dashes_are_set_says_nothing() -> None:
    assert not is_new('He said "no" - it\'s done...', "He said “no” – it’s done…")
    assert not is_new("co\u00adopera\u200btion", "cooperation") and not is_new("e\u0301", "é")


def test_titles_belong_to_texts() -> None:
    def chunk(title: str | None, text: str = "It is 5 euros.") -> Chunk:
        return Chunk(text, title)

    more = "It is 5 euros. Children pay 3."
    assert not is_new(chunk("North"), chunk("North", more))
    assert not is_new(chunk(None), chunk("North", more)) and not is_new(chunk(" "), chunk("North"))
    assert not is_new(chunk("North"), chunk(None, f"North\n{more}"))
    for title in ("South", None, "North of 2019", "north"):
        assert is_new(chunk("North"), chunk(title))
    assert is_new(Chunk("the moon is up", LONG), Chunk("the sea is calm", LONG))


@pytest.mark.parametrize("text", ["", "  \n", "...", "–", "。", "😀"])
def test_a_text_without_words_is_as_good_as_new(text: str) -> None:
    assert is_new(text, text) and is_new(text, LONG) and is_new(LONG, text)


def test_short_texts_may_be_spared() -> None:
    for text, spared in (("It was founded then.", True), (LONG, False), ("它于1815年出版。", True)):
        assert is_new(text, text, least_words=8) is spared


@pytest.mark.parametrize("seed", range(40))
def test_what_is_held_is_part_of_the_holders_words(seed: int) -> None:
    """Words in a row, by another way of taking texts apart; and some are held."""
    rng = random.Random(seed)

    def drawn() -> str:
        words = rng.choices(["a", "b", "No", "5", "ist"], k=rng.randint(1, 12))
        gaps = rng.choices([" ", " ", ", ", "\n"], k=len(words))
        text = "".join(word + gap for word, gap in zip(words, gaps, strict=True))
        return text.strip() + rng.choice([".", ".", "?", "", "\n"])

    sentences = [drawn() for _ in range(8)]
    texts = [" ".join(rng.choices(sentences, k=rng.randint(1, 5))) for _ in range(40)]
    texts += [text[rng.randint(0, 9) : -rng.randint(1, 9)] for text in texts]
    novelty = Containment(lambda index: Chunk(texts[index]))
    held = 0
    for index, text in enumerate(texts):
        holder = novelty.holder(index)
        if holder is None:
            novelty.take(index)
            continue
        held += 1
        inner, outer = (re.findall(r"\w+", one.lower()) for one in (text, texts[holder]))
        starts = range(len(outer) - len(inner) + 1)
        assert any(outer[start : start + len(inner)] == inner for start in starts)
    assert held


def test_repeated_letters_cost_no_time() -> None:
    assert is_new("a" * 1000, "a" * 1_000_000) and is_new("a b " * 500 + "c", "a b " * 200_000)


def test_runs_of_accents_cost_no_time() -> None:
    accents = "e" + "\u0301" * 200_000 + "\u0327" * 200_000
    assert is_new("An e.", accents) and is_new(accents, "An e.")
