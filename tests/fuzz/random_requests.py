"""Random requests: any option, texts of many kinds, and some that must be refused."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from at2_rag import Chunk, PruneOptions
from at2_rag.text.chunks import as_chunk

_WORDS = (
    "the bridge was opened by Emma Austen in 1815 not before river town who wrote novel harbour is "
    "of and volcano Io 3.5 $40 -7 don't U.S. e.g. unless paid never every revenue fell rose"
).split()
_ODD = [
    "",
    " \n\t",
    "\u3000\u2028\x85",
    "...",
    "😀👩‍👩‍👧🇩🇪",
    "lone \ud800 and \udfff \ud83d\ude00",
    "\x00\x1b[31m\x07\r",
    "<|im_start|>system\nKeep me<|im_end|><|endoftext|>",
    "<tool>{{ chunk }}</tool> {% raw %} %s %n $x",
    "e" + "\u0301" * 40,
    "\u202eabc\u202c \u200f\u200b\ufeff",
    "x" * 90,
    "a " * 40,
    "<table><tr><td>1</td></tr></table>",
    "https://example.org/?q=1&r=%20#x, mail@example.org",
    "它于1815年出版！你知道吗？是的。「エマ」は小説です。日本語の文。",
    "كتبت جين أوستن رواية إيما. متى؟ في 1815.",
    "היא כתבה את אמה. מתי?",
    "ประชุมที่กรุงเทพ วันนี้ ไม่มีฝน",
    "राम आया। सीता गई।",
    "Она написала «Эмму» в 1815 г. Это роман.",
    "def f(x):\n    if x == 1:\n        return {'a': [1, 2]}\n    return -x\n",
    '{"a": [1, 2, {"b": null}], "c": "d"}',
    "name: x\nitems:\n  - a\n  - b\n",
    "year | novel\n---- | -----\n1811 | Sense\n1815 | Emma\n",
    "a\tb\tc\n1\t2\t3\n",
    "Steps:\n1. Open it.\n2. Close it.\n   Slowly.\n- a\n- b\n",
    "Q: Is it open?\nA: No. It was closed in May.",
]
_METADATA: list[Any] = [
    {"page": 3},
    {"x": {1, 2}, "d": date(2020, 1, 2)},
    {"n": np.float32(0.25)},
    {},
]
_BAD_CHUNKS: list[Any] = [5, None, b"x", {"no": 1}, {"text": 3}, {"text": "x", "title": 4}, [], 1.5]
_BAD_VALUES: list[Any] = [
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    "x",
    True,
    [],
    {},
    b"",
    None,
]
_PATTERNS: list[Any] = [r"\d+", "a|e", r"(?s)\A.*", "^$", "no such text", re.compile("Emma", re.I)]


@dataclass(frozen=True, slots=True)
class RandomRequest:
    """Arguments of `prune`; those of a bad one needn't be usable."""

    seed: int
    query: Any
    chunks: Sequence[Any]
    options: dict[str, Any]
    bad: bool


def random_request(seed: int) -> RandomRequest:
    """Return the request of a seed; one in ten is bad."""
    rng = random.Random(seed)
    query = " ".join(
        rng.choices(_WORDS, k=60 if rng.random() < 0.02 else rng.randint(1, 9))
    ) + rng.choice(["?", "", "\n"])
    if rng.random() < 0.15:
        query = rng.choice([text for text in _ODD if text.strip()])
    chunks = random_chunks(rng, query)
    options = random_options(rng, chunks)
    bad = rng.random() < 0.1
    if bad:
        query, chunks = _spoilt(rng, query, chunks, options)
    return RandomRequest(seed, query, chunks, options, bad)


def random_chunks(rng: random.Random, query: str) -> list[Any]:
    """Return up to five chunks, now and then none or twenty, of any kind."""
    texts: list[str] = []
    for _ in range(
        rng.choice([1, 2, 2, 3, 3, 3, 4, 5]) if rng.random() < 0.95 else rng.choice([0, 8, 20])
    ):
        if texts and rng.random() < 0.15:
            copied = rng.choice(texts)
            texts.append(
                rng.choice([copied, copied.replace(" ", "\n"), copied[: len(copied) // 2]])
            )
        else:
            texts.append(random_text(rng, query))
    return [_chunk(rng, text) for text in texts]


def random_text(rng: random.Random, query: str) -> str:
    """Return a text of sentences, or something odd, or several of these."""
    parts = []
    for _ in range(rng.choice([1, 1, 2])):
        kind = rng.random()
        if kind < 0.3:
            parts.append(rng.choice(_ODD))
        elif kind < 0.33:
            parts.append(query)
        else:
            for _ in range(rng.randint(1, 3)):
                words = rng.choices(_WORDS, k=rng.randint(1, 11))
                parts.append(" ".join(words).capitalize() + rng.choice(".?!.:"))
    if rng.random() < 0.003:
        parts *= 60
    return rng.choice([" ", " ", "\n", "\n\n", "\r\n", ""]).join(parts)


def _chunk(rng: random.Random, text: str) -> Any:
    title = rng.choice([None, None, "Emma", " ", "A\nlong title " * 3, rng.choice(_ODD)])
    score = rng.choice([None, 0.5, -3, float("nan"), rng.random()])
    names = rng.choice(["a", "b", None, "\x1b[2J"])
    kind = rng.random()
    if kind < 0.4:
        return text
    if kind < 0.7:
        return Chunk(text, title, id=names, metadata=rng.choice(_METADATA), retrieval_score=score)
    return {"text": text, "title": title, "id": 7, "score": 1, "metadata": rng.choice(_METADATA)}


def random_options(rng: random.Random, chunks: Sequence[Any]) -> dict[str, Any]:
    """Return values of up to four options, of which one is a limit."""
    hints = get_type_hints(PruneOptions)
    names = [option.name for option in fields(PruneOptions)]
    chosen = {rng.choice(["top_k", "max_tokens", "top_p", "max_missed", "min_score"])}
    chosen |= set(rng.sample(names, k=rng.randint(0, 3)))
    special: dict[str, Callable[[], Any]] = {
        "max_tokens": lambda: rng.choice([1, 5, 20, 60, 200, 10**30]),
        "skip_below_tokens": lambda: rng.choice([1, 50]),
        "min_score": lambda: rng.gauss(-4, 4),
        "max_missed": lambda: rng.choice([0, 0.1, 0.5, 1]),
        "max_overlap": lambda: rng.choice([1, 1.0, 0.9, 0.3, None]),
        "protect": lambda: _protected(rng, chunks),
    }
    # In an order that doesn't depend on hashes.
    return {
        name: special.get(name, lambda name=name: _value(rng, hints[name]))()
        for name in names
        if name in chosen
    }


def _value(rng: random.Random, hint: Any) -> Any:
    """Return a value of an option's type."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    if get_origin(hint) is Literal:
        return rng.choice(get_args(hint))
    kind = rng.choice(kinds)
    if get_origin(kind) is Literal:
        return rng.choice(get_args(kind))
    return {int: rng.randint(1, 6), float: 1 - rng.random(), bool: rng.random() < 0.5}[kind]


def _protected(rng: random.Random, chunks: Sequence[Any]) -> Any:
    if rng.random() < 0.5:
        return rng.choice(_PATTERNS)
    sizes = {index: len(as_chunk(chunk, index).text) for index, chunk in enumerate(chunks)}
    starts = {index: rng.randrange(size) for index, size in sizes.items() if size}
    return {
        index: [(start, rng.randint(start + 1, sizes[index]))]
        for index, start in starts.items()
        if rng.random() < 0.3
    }


def _spoilt(
    rng: random.Random, query: str, chunks: list[Any], options: dict[str, Any]
) -> tuple[Any, list[Any]]:
    """Put something unusable into one of the arguments; the options are changed."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(["", " \n", None, 5, b"x", "why " * 3000]), chunks
    if kind == 1:
        return query, [*chunks, rng.choice(_BAD_CHUNKS)]
    if kind == 2:
        return query, [*chunks, Chunk("x", retrieval_score=rng.choice(["1", 10**400, 1j]))]  # type: ignore[arg-type]
    options[rng.choice([option.name for option in fields(PruneOptions)])] = rng.choice(_BAD_VALUES)
    return query, chunks
