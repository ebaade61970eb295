"""Middleware of agents: what a tool returns is pruned once, before the model sees it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from langchain.agents.middleware import AgentMiddleware
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool

from at2_rag.adapters import OnResult, PrunerByName, PrunerNames, joined_passages
from at2_rag.errors import InputError
from at2_rag.options import DEFAULT_TOP_K, PruneOptions, PruneOverrides
from at2_rag.results import PruneResult
from at2_rag.text.chunks import Chunk
from at2_rag.text.passages import passage_spans

if TYPE_CHECKING:
    from langgraph.prebuilt.tool_node import ToolCallRequest
    from langgraph.types import Command

    from at2_rag.pruner import AT2Pruner

    Handled = ToolMessage | Command[Any]

EXPAND = "expand_tool_result"
ORIGINAL = "at2_original"
"""Key of a message's `additional_kwargs` under which the tool's whole result is."""

ERRORS = r"(?m)^.*(?:Traceback|[Ee]rror|ERROR|[Ee]xception|FATAL|[Ff]ailed|FAILED|panic).*$"
"""Lines that are kept whatever the question is."""


class MiddlewareSettings(PruneOverrides, PrunerNames, total=False):
    """The settings of `AT2ToolResultMiddleware` but the first ones, for type checkers."""


class AT2ToolResultMiddleware(AgentMiddleware):
    """Prunes what tools return by the agent's question, once, before the model has seen it.

    A result is cut into passages (paragraphs, or runs of lines in a log), and the relevant ones are
    kept to the letter, in their order, with a last line that says what was left out and how to get
    it. Earlier messages are never changed, so that a provider's prompt cache stays valid. The whole
    result is in `ToolMessage.additional_kwargs["at2_original"]`, and the agent has a tool,
    `expand_tool_result`, that returns it by the id of the call for as long as the conversation
    lives.

    Left as they are: results that are errors, that aren't text, of at most `skip_below_tokens`
    tokens, or of which all is relevant.

    Options are those of `at2_rag.options.PruneOptions`; all limits must hold. Without any,
    calibrated head weights (like the default ones) keep as many passages as are expected to hold
    85 % of what is relevant; others keep the best three.

    Args:
        goal: What to prune by; None for the last message of the user.
        only: Names of the tools whose results are pruned; None for all.
        on_result: Called with the `PruneResult` of each pruning, whose chunks are the passages.
        pruner: A pruner in place of the names it is loaded by.
        **settings: `model`, `head_weights`, `device`, `chunk_cache` and `on_error` ("keep_all" if
            it isn't passed, so that a failure leaves the result as it is), and options. Unless
            they are passed `skip_below_tokens` is 400 and lines with errors are protected.

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
        given: dict[str, Any] = dict(settings)
        names = {name: given.pop(name) for name in PrunerNames.__annotations__ if name in given}
        self._by_name = PrunerByName(**names)
        self._by_name.check_alone(pruner)
        if pruner is None:
            self._by_name = PrunerByName(**{"on_error": "keep_all", **names})
        self._pruner, self._goal, self._on_result = pruner, goal, on_result
        self._only = None if only is None else frozenset(only)
        defaults = {"skip_below_tokens": 400, "protect": ERRORS, "order": "original"}
        self._options = PruneOptions(**{**defaults, **given})
        self._overrides: PruneOverrides = {**defaults, **given}  # type: ignore[typeddict-item]
        self.tools: Sequence[BaseTool] = [_expand_tool()]

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Handled]
    ) -> Handled:
        """Run the tool and prune what it returns."""
        message = handler(request)
        query = self._query(request, message)
        if query is None or not isinstance(message, ToolMessage):
            return message
        pruner, passages = self._pruner or self._by_name.pruner(), _passages(message)
        return self._pruned(message, pruner.prune(query, passages, **self._limits(pruner)))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Handled]]
    ) -> Handled:
        """Do as `wrap_tool_call` without blocking the event loop."""
        message = await handler(request)
        query = self._query(request, message)
        if query is None or not isinstance(message, ToolMessage):
            return message
        pruner, passages = self._pruner or await self._by_name.apruner(), _passages(message)
        return self._pruned(message, await pruner.aprune(query, passages, **self._limits(pruner)))

    def _query(self, request: ToolCallRequest, message: Handled) -> str | None:
        """Return what to prune a result by; None to leave it as it is."""
        name = request.tool_call["name"]
        if name == EXPAND or (self._only is not None and name not in self._only):
            return None
        if not isinstance(message, ToolMessage) or message.status == "error":
            return None
        if not isinstance(message.content, str) or not message.content.strip():
            return None
        query = self._goal or _last_question(_messages(request.state))
        return query if query and query.strip() else None

    def _limits(self, pruner: AT2Pruner) -> PruneOverrides:
        has_limit = pruner.options.override(**self._overrides).has_limit
        if pruner.calibrated or has_limit:
            return self._overrides
        return {**self._overrides, "top_k": DEFAULT_TOP_K}

    def _pruned(self, message: ToolMessage, result: PruneResult) -> ToolMessage:
        """Return the message with what is kept of its content; the message itself if all is."""
        if self._on_result is not None:
            self._on_result(result)
        if not result.dropped and all(passage.spans is None for passage in result.kept):
            return message
        count = len(result.kept) + len(result.dropped)
        saved = result.tokens_before - result.tokens_after
        note = (
            f"\n[Left out as irrelevant: {len(result.dropped)} of {count} passages, {saved:,} "
            f"tokens; {EXPAND}({json.dumps(message.tool_call_id)}) returns all.]"
        )
        original = {ORIGINAL: message.content}
        return message.model_copy(
            update={
                "content": joined_passages(result) + note,
                "additional_kwargs": {**message.additional_kwargs, **original},
            }
        )


def _passages(message: ToolMessage) -> list[Chunk]:
    text = str(message.content)
    return [Chunk(text[start:end]) for start, end in passage_spans(text)]


def _messages(state: Any) -> Sequence[AnyMessage]:
    """Return the messages of an agent's state, which may be a mapping, a list or a model."""
    if isinstance(state, list):
        return state
    messages = state.get("messages") if isinstance(state, dict) else getattr(state, "messages", ())
    return messages or ()


def _last_question(messages: Sequence[AnyMessage]) -> str | None:
    questions = (message for message in reversed(messages) if isinstance(message, HumanMessage))
    question = next(questions, None)
    return None if question is None else str(question.text)


def _expand_tool() -> BaseTool:
    @tool(EXPAND)
    def expand_tool_result(tool_call_id: str, runtime: ToolRuntime) -> str:
        """Return the whole result of an earlier tool call that was shortened.

        Args:
            tool_call_id: The id that the shortened result names.
            runtime: Filled in by the agent.
        """
        for message in _messages(runtime.state):
            if isinstance(message, ToolMessage) and message.tool_call_id == tool_call_id:
                return str(message.additional_kwargs.get(ORIGINAL, message.content))
        return f"There is no result of a call {tool_call_id!r} in this conversation."

    return expand_tool_result
