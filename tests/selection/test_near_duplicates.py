"""Texts that say little new beside others, against hand-worked cases and brute force."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from at2_rag.selection.near_duplicates import NearDuplicates
from at2_rag.selection.novelty import Novelty
from at2_rag.text.chunks import Chunk

LONG = "the council met in the old town hall by the river and spoke of the new bridge for hours"


def near(texts: list[str], titles: list[str | None] | None = None, **options: float) -> Novelty:
    """Titles none by default, an overlap of .9."""
    chunks = [Chunk(*one) for one in zip(texts, titles or [None] * len(texts), strict=True)]
    return NearDuplicates(chunks.__getitem__, **{"overlap": 0.9, **options})  # type: ignore[arg-type]


def is_new(text: str, *others: str, overlap: float = 0.9) -> bool:
    novelty = near([*others, text], overlap=overlap)
    for index in range(len(others)):
        novelty.take(index)
    return novelty.holder(len(others)) is None


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
        (LONG.removesuffix(" for hours"), False),
        (LONG.replace("of the new bridge", "of the bridge"), False),  # two runs of sixteen
        (LONG + " by the river", False),
        (LONG.replace("hours", "ages"), True),
        (LONG.replace("by the river", "by the bridge"), True),
        (LONG.removesuffix("hours") + "river", True),  # a word that is known, for another
        ("bridge" + LONG.removeprefix("the"), True),
        (LONG + " until dawn", True),
        (LONG.replace("hours", "7 hours"), True),
        (LONG + " not", True),
        (LONG + " and didn't stop", True),
        (LONG + " 北京", True),
    ],
)
def test_a_word_that_is_new_or_stands_for_another_is_new(changed: str, new: bool) -> None:
    assert is_new(changed, LONG, overlap=0.75) is new
    assert is_new(changed, LONG, "a bridge by the river; not so", overlap=0.75) is new
    assert is_new(changed, LONG, overlap=1.0) or changed in LONG


@pytest.mark.parametrize("pair", ["opened closed", "left right", "before after", "paid unpaid"])
@pytest.mark.parametrize("position", [0, 1, 9, -2, -1])
def test_opposites_that_both_are_known_are_told_apart(pair: str, position: int) -> None:
    one, other = (LONG.split() for _ in range(2))
    one[position], other[position] = pair.split()
    assert is_new(" ".join(other), " ".join(one), f"{pair} and {pair}", overlap=0.5)
    assert not is_new(" ".join(one), " ".join(one), overlap=0.5)


def test_names_and_numbers_that_are_there_are_not_new() -> None:
    text = "In 2019 Ann Lee sold 30 boats, not 40, and left for Rome in the spring of that year"
    assert not is_new(text, f"It is said: {text}.")
    assert not is_new(text.removesuffix(" year"), text)


def test_a_text_under_another_title_is_new() -> None:
    titles = ["fees of the north", "Fees of the North!", "fees of the south", None]
    novelty = near([LONG] * 4, titles)
    novelty.take(0)
    assert [novelty.holder(index) for index in range(4)] == [0, 0, None, 0]
    novelty.take(2)
    assert novelty.holder(2) == 2
    novelty = near([LONG] * 4, titles)
    novelty.take(3)
    assert [novelty.holder(index) for index in range(4)] == [None, None, None, 3]


def test_the_holder_is_the_one_that_holds_most() -> None:
    words = LONG.split()
    novelty = near([" ".join(words[:6]), " ".join(words[4:]), LONG])
    novelty.take(0)
    novelty.take(1)
    assert novelty.holder(2) == 1


def test_a_long_title_does_not_make_short_texts_alike() -> None:
    novelty = near(["the moon is up", "the sea is calm"], [LONG, LONG])
    novelty.take(0)
    assert novelty.holder(1) is None


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
    novelty = near(["It was founded then."] * 2 + [LONG] * 2, least_words=8)
    novelty.take(0)
    novelty.take(2)
    assert [novelty.holder(index) for index in range(4)] == [None, None, 2, 2]


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_counting_runs_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices("abcde", k=rng.randint(0, 9))) for _ in range(60)]
    texts += [f"{texts[0]} NOT", f"{texts[1]} {texts[2]} 7"]
    titles = [rng.choice([None, None, "north", "south", "north south"]) for _ in texts]
    overlap = rng.choice([0.3, 0.5, 0.75, 1.0])
    novelty = near(texts, titles, overlap=overlap)
    taken: list[int] = []

    def runs(text: str) -> list[tuple[str, ...]]:
        words = text.split()
        starts = range(max(1, len(words) - 2)) if words else ()
        return [tuple(words[start : start + 3]) for start in starts]

    def instead(run: tuple[str, ...], other: tuple[str, ...], position: int) -> bool:
        pairs = enumerate(zip(run, other, strict=False))
        return len(run) == len(other) and all((a == b) != (i == position) for i, (a, b) in pairs)

    for index, text in enumerate(texts):
        title = set((titles[index] or "").split())
        others = [texts[i].lower() for i in taken if title <= set((titles[i] or "").split())]
        held = {run for other in others for run in runs(other)}
        words = set(" ".join(others).split())
        ours = runs(text.lower())
        known = [run for run in set(ours) if run in held]
        new = not ours or Fraction(len(known), len(set(ours))) < Fraction(overlap)
        for run, original in zip(ours, runs(text), strict=True):
            if run in held:
                continue
            gaps = [1] if len(run) == 3 else []
            gaps += [0] if run == ours[0] else []
            gaps += [len(run) - 1] if run == ours[-1] else []
            new = new or not all(map(str.islower, original)) or not set(run) <= words
            new = new or any(instead(run, other, gap) for other in held for gap in gaps)
        assert (novelty.holder(index) is None) is new
        if rng.random() < 0.5:
            novelty.take(index)
            taken.append(index)
