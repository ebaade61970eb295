"""Texts that say nothing new beside others, against hand-worked cases and brute force."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from at2_rag.selection.novelty import TextNovelty

LONG = "the council met in the old town hall by the river and spoke of the new bridge for hours"


def is_new(text: str, *others: str, overlap: float = 0.9) -> bool:
    novelty = TextNovelty([*others, text], [None] * (1 + len(others)), overlap)
    for index in range(len(others)):
        novelty.take(index)
    return novelty.is_new(len(others))


@pytest.mark.parametrize(
    "text",
    [LONG, LONG.replace(" and ", ", and\n"), f'  "{LONG}"!', "the old town hall", "river"],
)
def test_what_stands_in_another_text_is_not_new(text: str) -> None:
    assert is_new(text, LONG) == (text == "river")  # alone it is a run
    assert is_new(text)
    assert not is_new(text, "something else", text)


def test_windows_cover_a_text_between_them() -> None:
    words = LONG.split()
    first, second = " ".join(words[:12]), " ".join(words[8:])
    middle = " ".join(words[4:16])
    assert is_new(middle, first) and is_new(middle, second)
    assert not is_new(middle, first, second)
    assert is_new(LONG, middle)


@pytest.mark.parametrize(
    ("changed", "new"),
    [
        (LONG.replace("hours", "ages"), False),  # one run of seventeen
        (LONG.replace("hours", "Henry"), True),
        (LONG.replace("hours", "7 hours"), True),
        (LONG + " not", True),
        (LONG + " and didn't stop", True),
        (LONG + " until dawn", False),
        (LONG + " 北京", True),
    ],
)
def test_a_number_a_name_or_a_negation_is_new_even_alone(changed: str, new: bool) -> None:
    assert is_new(changed, LONG, overlap=0.85) is new
    assert is_new(changed, LONG, overlap=1.0)


def test_names_and_numbers_that_are_there_are_not_new() -> None:
    text = "In 2019 Ann Lee sold 30 boats, not 40, and left for Rome in the spring of that year"
    assert not is_new(text, f"It is said: {text}.")
    assert not is_new(text.removesuffix(" year"), text)


def test_a_text_under_a_title_of_its_own_is_new() -> None:
    titles = ["fees of the north", "Fees of the North!", "fees of the south", None]
    novelty = TextNovelty([LONG] * 4, titles, 0.9)
    novelty.take(0)
    assert [novelty.is_new(index) for index in range(4)] == [False, False, True, False]
    novelty.take(2)
    assert not novelty.is_new(2)
    novelty.give_back(2)
    novelty.take(3)
    assert [novelty.is_new(index) for index in range(4)] == [True, True, True, False]


def test_a_long_title_does_not_make_short_texts_alike() -> None:
    novelty = TextNovelty(["the moon is up", "the sea is calm"], [LONG, LONG], 0.9)
    novelty.take(0)
    assert novelty.is_new(1)


@pytest.mark.parametrize("text", ["", "  \n", "...", "–"])
def test_a_text_without_words_is_as_good_as_new(text: str) -> None:
    assert is_new(text, text) and is_new(text, LONG)
    assert is_new(LONG, text)


def test_texts_in_chinese_and_thai_are_told_apart() -> None:
    for one, other in (("会议在北京举行。", "会议在上海举行。"), ("ประชุมที่กรุงเทพ", "ประชุมที่เชียงใหม่")):
        assert is_new(one, other) and not is_new(one, other, one)


def test_another_text_that_is_kept_does_not_make_a_number_known() -> None:
    words = "in the year {} the great games of the north were held in the old town by the river"
    for kept, changed in (
        (words.format(2019), words.format(2020)),
        (LONG + " so it is safe", LONG + " so it is not safe"),
    ):
        assert is_new(changed, kept, "the games of 2020 were put off and not held", overlap=0.7)
        assert not is_new(changed, kept, changed)


def test_marks_and_signs_make_other_words() -> None:
    for one, other in (
        ("राम और सीता था", "राम और सीता थी"),
        ("ไม่", "ไม้"),
        ("the balance at the end was -500 euros", "the balance at the end was 500 euros"),
        ("growth was +5 percent", "growth was -5 percent"),
        ("the pressure is > 5 bar", "the pressure is < 5 bar"),
        ("it is written in C++ by hand", "it is written in C# by hand"),
        ("it costs 5 % more", "it costs 5 more"),
    ):
        assert is_new(one, other) and is_new(other, one)
        assert not is_new(one, one) and not is_new(f"({one}).", one)


def test_short_texts_may_be_spared() -> None:
    novelty = TextNovelty(["It was founded then."] * 2 + [LONG] * 2, [None] * 4, 0.9, least_words=8)
    novelty.take(0)
    novelty.take(2)
    assert [novelty.is_new(index) for index in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_counting_runs_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices("abcde", k=rng.randint(0, 9))) for _ in range(12)]
    texts += [f"{texts[0]} NOT", f"{texts[1]} {texts[2]} 7"]
    titles = [rng.choice([None, None, "north", "south", "north south"]) for _ in texts]
    overlap = rng.choice([0.3, 0.5, 0.75, 1.0])
    novelty = TextNovelty(texts, titles, overlap)
    taken: list[int] = []

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        starts = range(max(1, len(words) - 2)) if words else ()
        return {tuple(words[start : start + 3]) for start in starts}

    for _ in range(80):
        index = rng.randrange(len(texts))
        title = set((titles[index] or "").split())
        others = [texts[i] for i in taken if title <= set((titles[i] or "").split())]
        held = {tuple(map(str.lower, run)) for text in others for run in runs(text)}
        lowered = {tuple(map(str.lower, run)): run for run in runs(texts[index])}
        known = lowered.keys() & held
        telling = {low for low, run in lowered.items() if not all(map(str.islower, run))}
        few = not lowered or Fraction(len(known), len(lowered)) < Fraction(overlap)
        assert novelty.is_new(index) is (few or not telling <= known)
        if rng.random() < 0.5:
            novelty.take(index)
            taken.append(index)
        elif taken:
            back = rng.randint(0, len(taken))
            novelty.give_back(back)
            taken = taken[: len(taken) - back]
