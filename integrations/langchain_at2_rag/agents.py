"""Middleware of agents: what a tool returns is pruned once, before the model sees it."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from langchain.agents.middleware import AgentMiddleware
from langchain.tools import ToolRuntime, tool
from langchain_core.documents import Document
from langchain_core.messages import AnyMessage, ToolMessage
from langchain_core.tools import BaseTool

from at2_rag.adapters import (
    OnResult,
    PrunerByName,
    PrunerNames,
    checked_options,
    checked_pruner,
    joined_passages,
    within_limits,
)
from at2_rag.errors import InputError
from at2_rag.options import PruneOverrides
from at2_rag.results import PruneResult
from at2_rag.text.chunks import Chunk
from at2_rag.text.passages import MOST_WORDS, passage_spans
from at2_rag.text.scripts import length
from at2_rag.text.sentences import Span
from langchain_at2_rag.messages import is_question

if TYPE_CHECKING:
    from langgraph.prebuilt.tool_node import ToolCallRequest
    from langgraph.types import Command

    from at2_rag.pruner import AT2Pruner

    Handled = ToolMessage | Command[Any]

_logger = logging.getLogger(__name__)

LONGEST_DOCUMENT = 4 * MOST_WORDS
"""A retriever's document of more words is cut into passages, too."""

EXPAND = "expand_tool_result"
ORIGINAL = "at2_original"
"""Key under which the tool's whole result is, in the message's artifact or `additional_kwargs`."""

ERRORS = (
    r"(?m)^.*(?:\b(?:Traceback|[Ee]rror|ERROR|Exception|FATAL|fatal|FAIL|FAILED|[Ff]ailed|panic|"
    r"Segmentation fault)\b|[a-z](?:Error|Exception)\b)"
    r"(?!\W{0,4}[=:]\W{0,3}(?:0|null|None|false)\b).*$"
)
"""Passages with lines like these are kept whatever the question is."""


class MiddlewareSettings(PruneOverrides, PrunerNames, total=False):
    """The settings of `AT2ToolResultMiddleware` but the first ones, for type checkers."""


class AT2ToolResultMiddleware(AgentMiddleware):
    """Prunes what tools return by the agent's question, once, before the model has seen it.

    A result is cut into passages: paragraphs, runs of lines in a log, elements of JSON, or the
    documents in the artifact of a retriever's tool. The relevant ones are kept to the letter, in
    their order, with a last line that says what was left out and how to get it. Earlier messages
    are never changed, so that a provider's prompt cache stays valid. The whole result is under
    "at2_original" in the message's `artifact`, which no model is sent, or in its
    `additional_kwargs` where the tool has an artifact of its own; and the agent has a tool,
    `expand_tool_result`, that returns it by the id of the call for as long as the conversation
    lives.

    Left as they are: results that are errors, that aren't text, of at most `skip_below_tokens`
    tokens, of which all is relevant, or that can't be pruned for any reason, which is logged.

    Options are those of `at2_rag.options.PruneOptions`; all limits must hold. Without any,
    calibrated head weights (like the default ones) keep passages that are at least a twentieth as
    likely to be relevant as the best one, and never fewer than the best 35 %; others keep the
    best three.

    Args:
        goal: What to prune by; None for the last message of the user, read after the one before it
            if it refers to that. It should say what is looked for ("yes, go on" doesn't).
        only: Names of the tools whose results are pruned; None for all.
        on_result: Called with the `PruneResult` of each pruning, whose chunks are the passages.
            What it raises is a failure of pruning.
        pruner: A pruner in place of the names it is loaded by.
        **settings: `model`, `head_weights`, `device`, `chunk_cache` and `on_error` ("raise" for a
            failure to reach the agent), and options. Unless they are passed `skip_below_tokens` is
            400 and passages with errors are protected.

    Raises:
        InputError: If a setting can't be used.
    """

    def __init__(
        self,
        *,
        goal: str | None = None,
        only: Collection[str] | None = None,
        on_result: OnResult | None = None,
        pruner: AT2Pruner | None = None,
        **settings: Unpack[MiddlewareSettings],
    ) -> None:
        super().__init__()
        if goal is not None and not goal.strip():
            raise InputError(f"goal is blank ({goal!r}); pass what to prune by, or None")
        if isinstance(only, str):
            raise InputError(f"only is a string ({only!r}); pass a list of names of tools")
        options: dict[str, Any] = dict(settings)
        names = {name: options.pop(name) for name in PrunerNames.__annotations__ if name in options}
        self._raises = names.pop("on_error", None) == "raise"
        self._by_name = PrunerByName(**names)
        self._by_name.check_alone(pruner)
        self._pruner = None if pruner is None else checked_pruner(pruner)
        self._goal, self._on_result = goal, on_result
        self._only = None if only is None else frozenset(only)
        defaults = {"skip_below_tokens": 400, "protect": ERRORS, "order": "original"}
        self._options = checked_options({**defaults, **options})
        self.tools: Sequence[BaseTool] = [_expand_tool()]

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Handled]
    ) -> Handled:
        """Run the tool and prune what it returns."""
        message = handler(request)
        if (text := self._text(request, message)) is None or not isinstance(message, ToolMessage):
            return message
        try:
            pruner, query = self._pruner or self._by_name.pruner(), self._query(request)
            options, turns = within_limits(pruner, self._options), self._turns(request)
            chunks = _passages(text, message.artifact)
            result = pruner.prune(query, chunks, history=turns, **options)
            return self._pruned(message, text, result)
        except Exception as error:
            return self._unpruned(message, error)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Handled]]
    ) -> Handled:
        """Do as `wrap_tool_call` without blocking the event loop."""
        message = await handler(request)
        if (text := self._text(request, message)) is None or not isinstance(message, ToolMessage):
            return message
        try:
            pruner, query = self._pruner or await self._by_name.apruner(), self._query(request)
            options, turns = within_limits(pruner, self._options), self._turns(request)
            chunks = _passages(text, message.artifact)
            result = await pruner.aprune(query, chunks, history=turns, **options)
            return self._pruned(message, text, result)
        except Exception as error:
            return self._unpruned(message, error)

    def _text(self, request: ToolCallRequest, message: Handled) -> str | None:
        """Return the text of a result that is to be pruned; None to leave it as it is."""
        name = request.tool_call["name"]
        if name == EXPAND or (self._only is not None and name not in self._only):
            return None
        if not isinstance(message, ToolMessage) or message.status == "error":
            return None
        text = _text_of(message)
        return text if text and text.strip() and self._query(request).strip() else None

    def _query(self, request: ToolCallRequest) -> str:
        return self._goal or _last_question(_messages(request.state))

    def _turns(self, request: ToolCallRequest) -> list[str]:
        """Return the user's messages, which the question may refer to."""
        messages = _messages(request.state)
        return [] if self._goal else [str(one.text) for one in messages if is_question(one)]

    def _unpruned(self, message: ToolMessage, error: Exception) -> ToolMessage:
        if self._raises:
            raise error
        _logger.warning("a tool's result is left as it is: pruning failed", exc_info=error)
        return message

    def _pruned(self, message: ToolMessage, text: str, result: PruneResult) -> ToolMessage:
        """Return the message with what is kept of its text; itself if that isn't shorter."""
        if self._on_result is not None:
            self._on_result(result)
        saved = result.tokens_before - result.tokens_after
        note = (
            f"\n[Left out as irrelevant: {saved:,} of {result.tokens_before:,} tokens; "
            f"{EXPAND}(tool_call_id={json.dumps(message.tool_call_id)}) returns all.]"
        )
        content = joined_passages(result) + note
        if len(content) >= len(text):
            return message
        original = {ORIGINAL: text}
        if message.artifact is None:
            return message.model_copy(update={"content": content, "artifact": original})
        others = {**message.additional_kwargs, **original}
        return message.model_copy(update={"content": content, "additional_kwargs": others})


def _original(message: ToolMessage) -> str | None:
    """Return the whole result of a message that was pruned; None of any other."""
    for values in (message.artifact, message.additional_kwargs):
        if isinstance(values, dict) and ORIGINAL in values:
            return str(values[ORIGINAL])
    return None


def _text_of(message: ToolMessage) -> str | None:
    """Return the text of a message; None if there is anything else in it."""
    if isinstance(message.content, str):
        return message.content
    blocks = message.content
    if not all(isinstance(block, dict) and block.get("type") == "text" for block in blocks):
        return None
    return "\n\n".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))


def _passages(text: str, artifact: Any) -> list[Chunk]:
    spans = _document_spans(text, artifact) or passage_spans(text)
    return [Chunk(text[start:end]) for start, end in spans]


def _document_spans(text: str, artifact: Any) -> list[Span]:
    """Return the ranges of a retriever tool's documents in its text; empty if there are none.

    What is between two documents, such as a heading with its source, goes with the second.
    """
    documents = artifact if isinstance(artifact, list) else []
    ends, end = [0], 0
    for document in documents:
        content = document.page_content if isinstance(document, Document) else ""
        start = text.find(content, end)
        if start < 0 or not content:
            return []
        ends.append(end := start + len(content))
    ends[-1] = len(text)
    spans: list[Span] = []
    for start, end in pairwise(ends):
        if length(text[start:end]) > LONGEST_DOCUMENT:
            inner = passage_spans(text[start:end])
            spans += [(start + first, start + last) for first, last in inner]
        else:
            spans.append((start, end))
    return spans


def _messages(state: Any) -> Sequence[AnyMessage]:
    """Return the messages of an agent's state, which may be a mapping, a list or a model."""
    if isinstance(state, list):
        return state
    messages = state.get("messages") if isinstance(state, dict) else getattr(state, "messages", ())
    return messages or ()


def _last_question(messages: Sequence[AnyMessage]) -> str:
    """Return the last message of the user; empty if there is none."""
    return next((str(one.text) for one in reversed(messages) if is_question(one)), "")


def _expand_tool() -> BaseTool:
    @tool(EXPAND, description="Return the whole result of an earlier tool call that was shortened.")
    def expand_tool_result(
        tool_call_id: Annotated[str, "The id that the shortened result names."],
        runtime: ToolRuntime,
    ) -> str:
        for message in _messages(runtime.state):
            if isinstance(message, ToolMessage) and message.tool_call_id == tool_call_id:
                return _original(message) or str(message.text)
        return f"There is no result of a call {tool_call_id!r} in this conversation."

    return expand_tool_result
