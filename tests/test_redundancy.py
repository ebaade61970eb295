"""Texts that say nothing new beside others, against hand-worked cases and brute force."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

from at2_rag.redundancy import TextNovelty

LONG = "the council met in the old town hall by the river and spoke of the new bridge for hours"


def is_new(text: str, *others: str, overlap: float = 0.9) -> bool:
    novelty = TextNovelty([*others, text], [None] * (1 + len(others)), overlap)
    for index in range(len(others)):
        novelty.take(index)
    return novelty.is_new(len(others))


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        LONG.upper().lower(),
        LONG.replace(" and ", ", and\n"),
        f'  "{LONG}"!',
        LONG.split(" and ")[0],
        "the old town hall",
        "river",
    ],
)
def test_what_stands_in_another_text_is_not_new(text: str) -> None:
    words = text.split()
    assert is_new(text, LONG) == (len(words) < 3)  # "river" alone is a run
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
        assert is_new(one, other)
        assert not is_new(one, other, one)


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_counting_runs_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices("abcde", k=rng.randint(0, 9))) for _ in range(12)]
    texts += [f"{texts[0]} NOT", f"{texts[1]} {texts[2]} 7"]
    overlap = rng.choice([0.3, 0.5, 0.75, 1.0])
    novelty = TextNovelty(texts, [None] * len(texts), overlap)
    taken: list[int] = []

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        if not words:
            return set()
        return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}

    for _ in range(80):
        index = rng.randrange(len(texts))
        held = set().union(*(runs(texts[own]) for own in taken))
        said = set(" ".join(texts[own] for own in taken).lower().split())
        own_runs = runs(texts[index])
        telling = [w for w in texts[index].split() if not w.islower()]
        new = (
            not own_runs
            or Fraction(len(own_runs & held), len(own_runs)) < Fraction(overlap)
            or any(word.lower() not in said for word in telling)
        )
        assert novelty.is_new(index) is new
        if rng.random() < 0.5:
            novelty.take(index)
            taken.append(index)
        elif taken:
            back = rng.randint(0, len(taken))
            novelty.give_back(back)
            taken = taken[: len(taken) - back]
