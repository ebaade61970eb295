"""What a conversation's last question refers to: "and who wrote it?"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from at2_rag.errors import InputError, brief
from at2_rag.text.function_words import FUNCTION_WORDS

Turn: TypeAlias = str | Mapping[str, Any]
"""A turn of a conversation: a question, or a message as a chat's API takes it."""

MOST_TURNS = 3
"""How many earlier questions a question may refer to, each by the one after it."""

MOST_WORDS = 3
"""A pronoun after as many content words refers to these, unless it ends the question."""

_WORD = re.compile(r"\w+")
_THINGS = frozenset("it its they them their theirs this these those".split())
_PERSONS = frozenset("he him his she her hers".split())
# They ask for more of what was said: "how much?", "until when?", "and since then?"
_ASK_FOR_MORE = frozenset(
    "again also but else ever exactly far ago late long many more much often old or since so soon "
    "still then there until yet".split()
)
_NO_CONTENT = FUNCTION_WORDS | _THINGS | _PERSONS | _ASK_FOR_MORE | {"that"}
# "Is it true that", "how long does it take to": nothing that was said before.
_EXPLETIVE = re.compile(r"it(?:\W+\w+){1,2}\W+(?:to|that|if|since)\b", re.IGNORECASE)


def asked_in(query: str, history: Iterable[Turn]) -> str:
    """Return a question as it is read: after the one before it, if it refers to that.

    See `refers`. The question before may refer to another in turn.

    Args:
        query: The last question.
        history: Turns before it, the last one at the end; of messages with a `role` only those of
            the user count. The query itself and blank turns may be among them.

    Raises:
        InputError: If it isn't a list, or a turn of the user has no text.
    """
    questions = _questions(history)
    if questions and questions[-1] == query.strip():
        questions.pop()
    read = [query]
    for question in reversed(questions[-MOST_TURNS:]):
        if not refers(read[0]):
            break
        read.insert(0, question)
    return " ".join(read)


def refers(query: str) -> bool:
    """Tell whether a question refers to something that was said before it, by English words.

    It does if it has no word of content ("why?"), or a pronoun that doesn't seem to refer to the
    question's own words: one at its end or after few words of content, and of a person's no name
    before it ("did Darwin change his mind").
    """
    words = list(_WORD.finditer(query))
    english = {number for number, match in enumerate(words) if _is_function_word(match)}
    shouted = query == query.upper()
    content = 0  # words of content so far
    has_name = False
    for number, match in enumerate(words):
        word = match[0].casefold()
        acronym = len(word) > 1 and match[0].isupper() and not shouted  # "IT", "WHO"
        if acronym or word not in _NO_CONTENT:
            content += 1
            has_name |= number > 0 and match[0][0].isupper()
            continue
        is_last = number == len(words) - 1
        if word == "it" and _EXPLETIVE.match(query, match.start()):
            continue
        if word in _PERSONS:
            # With another English word: "her" is a German word, too.
            is_pronoun = not has_name and len(english) > (number in english)
        else:
            is_pronoun = word in _THINGS or (word == "that" and is_last)
        if is_pronoun and (content < MOST_WORDS or is_last):
            return True
    return bool(words) and content == 0


def _is_function_word(match: re.Match[str]) -> bool:
    return match[0].casefold() in FUNCTION_WORDS


def _questions(history: Iterable[Turn]) -> list[str]:
    if isinstance(history, str | bytes | Mapping) or not isinstance(history, Iterable):
        raise InputError(f"history is a {type(history).__name__}; pass a list of turns")
    texts = []
    for index, turn in enumerate(history):
        if isinstance(turn, Mapping) and turn.get("role", "user") not in ("user", "human"):
            continue
        text = _text(turn.get("content") if isinstance(turn, Mapping) else turn)
        if text is None:
            raise InputError(
                f"history[{index}] is {brief(turn)}; pass a string, or a mapping whose 'content' "
                "is text"
            )
        if text.strip():
            texts.append(text.strip())
    return texts


def _text(content: Any) -> str | None:
    """Return the text of a message's content: a string, or a list of parts some of which are text.

    None if there isn't any.
    """
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str)) or None
