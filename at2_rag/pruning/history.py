"""What a conversation's last question refers to: "and who wrote it?"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from at2_rag.errors import InputError, brief
from at2_rag.text.function_words import content_spans

Turn: TypeAlias = str | Mapping[str, Any]
"""A turn of a conversation: a question, or a message as a chat's API takes it."""

MOST_TURNS = 3
"""How many earlier questions a question may refer to, each by the one after it."""

MOST_WORDS = 3
"""A pronoun after as many content words refers to these, unless it ends the question."""

_REFERS = re.compile(
    r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|these|those)\b"
    r"|\bthat\b(?=\W*$)",
    re.IGNORECASE,
)
_ENDS = re.compile(r"\W*")


def asked_in(query: str, history: Iterable[Turn]) -> str:
    """Return a question as it is read: after the one before it, if it refers to that.

    A question refers to the one before it by a pronoun, or by having no word of content ("why?").
    That one may refer to another in turn. Pronouns are looked for in English alone.

    Args:
        query: The last question.
        history: Turns before it, the last one at the end; of messages with a `role` only those of
            the user count. The query itself and blank turns may be among them.

    Raises:
        InputError: If it isn't a list, or a turn is neither text nor a mapping with text as its
            `content`.
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
    """Tell whether a question refers to something that was said before it."""
    content = [start for start, _ in content_spans(query)]
    if not content:
        return True
    return any(
        sum(start < match.start() for start in content) < MOST_WORDS
        or _ENDS.fullmatch(query, match.end())
        for match in _REFERS.finditer(query)
    )


def _questions(history: Iterable[Turn]) -> list[str]:
    if isinstance(history, str | bytes | Mapping) or not isinstance(history, Iterable):
        raise InputError(f"history is a {type(history).__name__}; pass a list of turns")
    texts = []
    for index, turn in enumerate(history):
        text = turn.get("content") if isinstance(turn, Mapping) else turn
        if not isinstance(text, str):
            raise InputError(
                f"history[{index}] is {brief(turn)}; pass a string, or a mapping whose 'content' "
                "is one"
            )
        is_users = not isinstance(turn, Mapping) or turn.get("role", "user") in ("user", "human")
        if is_users and text.strip():
            texts.append(text.strip())
    return texts
