"""The user's questions among the messages of a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from langchain_core.messages import (
    BaseMessage,
    ChatMessage,
    HumanMessage,
    convert_to_messages,
)

from at2_rag.errors import InputError, brief


def is_question(message: BaseMessage) -> TypeGuard[HumanMessage | ChatMessage]:
    """Tell whether a message is the user's."""
    is_users = isinstance(message, HumanMessage) or (
        isinstance(message, ChatMessage) and message.role in ("user", "human")
    )
    # What has a source of langchain's was written by it, as a summary is.
    return is_users and "lc_source" not in message.additional_kwargs


def questions_of(history: Any, name: str) -> list[str]:
    """Return what the user said, of messages in any form that LangChain takes; None is empty.

    Raises:
        InputError: If it is anything else.
    """
    if history is None:
        return []
    if isinstance(history, str | bytes | Mapping) or not isinstance(history, Iterable):
        raise InputError(
            f"{name} is a {type(history).__name__} ({brief(history)}); pass a list of messages"
        )
    try:
        messages = convert_to_messages(list(history))
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"{name} has what is no message: {error}") from error
    return [str(message.text) for message in messages if is_question(message)]
