"""The server and its tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cachetools import LRUCache
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from at2_rag.adapters import PrunerByName, joined_passages, loaded_model, within_limits
from at2_rag.errors import AT2Error, InputError
from at2_rag.options import PruneOverrides
from at2_rag.text.passages import passage_spans

if TYPE_CHECKING:
    from at2_rag.results import CitedAnswer

P = ParamSpec("P")
T = TypeVar("T")

MOST_CHARACTERS = 2**26
"""Characters of whole texts that are kept for `expand`; the least recently used go first."""

_INSTRUCTIONS = (
    "Shorten long text to what a question needs (prune_context, then expand for the whole of it), "
    "rank passages by relevance, and find the sources of an answer. All of it runs locally."
)


class PrunedContext(BaseModel):
    """What `prune_context` returns."""

    text: str = Field(description="The passages that are kept, to the letter and in their order.")
    id: str = Field(description="For expand.")
    passages_kept: int
    passages: int
    tokens_kept: int
    tokens: int
    answerable: float | None = Field(description="Probability that the text holds the answer.")
    notes: list[str]


class RankedPassage(BaseModel):
    """A passage in what `rank_passages` returns."""

    index: int = Field(description="In the list that was passed, from 0.")
    score: float
    probability: float | None = Field(description="That the passage is relevant.")
    text: str


class CitedText(BaseModel):
    """What `cite_answer` returns."""

    text: str = Field(description="The answer with markers such as [1].")
    sources: list[str] = Field(description="Source [n] is the n-th.")


def make_server(
    *,
    model: str | None = None,
    head_weights: str | None = None,
    device: str | None = None,
    chunk_cache: str | None = None,
) -> MCPServer:
    """Return a server whose model is loaded by the first call of a tool.

    Args:
        model: Name or folder of the scoring model; None for the default model.
        head_weights: Name of shipped head weights, or a folder; None for "best".
        device: Where the model runs; None for CUDA where there is one, else the CPU.
        chunk_cache: Folder that keeps what was read of passages; None for main memory.
    """
    by_name = PrunerByName(model, head_weights, device, chunk_cache)
    texts: LRUCache[str, str] = LRUCache(MOST_CHARACTERS, getsizeof=len)
    server = MCPServer("at2_rag", instructions=_INSTRUCTIONS)

    def cited(question: str, passages: list[str], answer: str) -> CitedAnswer:
        from at2_rag.attribution import AT2Attributor

        # The model is the pruner's; what is made of it takes no time.
        attributor = AT2Attributor(loaded_model(model, device))
        return attributor.cite(question, passages, answer)

    @server.tool()
    @_saying_why
    async def prune_context(
        question: str, text: str, max_tokens: int | None = None
    ) -> PrunedContext:
        """Keep the passages of a long text (a document, a web page, a log) that a question needs.

        Args:
            question: What the text is read for.
            text: The text.
            max_tokens: Most tokens to keep; by default as many as the question probably needs.
        """
        if len(text) > MOST_CHARACTERS:
            raise InputError(
                f"text has {len(text):,} characters, the most is {MOST_CHARACTERS:,}; split it"
            )
        pruner = await by_name.apruner()
        cut = [text[start:end] for start, end in passage_spans(text)]
        limits: PruneOverrides = {"order": "original", "max_tokens": max_tokens}
        result = await pruner.aprune(question, cut, **within_limits(pruner, limits))
        identity = sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
        texts[identity] = text
        return PrunedContext(
            text=joined_passages(result),
            id=identity,
            passages_kept=len(result.kept),
            passages=len(cut),
            tokens_kept=result.tokens_after,
            tokens=result.tokens_before,
            answerable=result.answerable,
            notes=list(result.notes),
        )

    @server.tool()
    @_saying_why
    async def rank_passages(question: str, passages: list[str]) -> list[RankedPassage]:
        """Rank passages by how relevant they are to a question, best first.

        Args:
            question: The question.
            passages: The passages.
        """
        pruner = await by_name.apruner()
        every: PruneOverrides = {"top_k": max(1, len(passages)), "max_overlap": None}
        result = await pruner.aprune(question, passages, **every)
        return [
            RankedPassage(
                index=passage.index,
                score=passage.score,
                probability=passage.probability,
                text=passage.text,
            )
            for passage in result.kept
        ]

    @server.tool()
    @_saying_why
    async def cite_answer(question: str, answer: str, passages: list[str]) -> CitedText:
        """Mark each sentence of an answer with the passage that it rests on most.

        It needs the default model, or another one with head weights for answers.

        Args:
            question: The question.
            answer: The answer, by any model.
            passages: The passages that the answer was made from.
        """
        await by_name.apruner()  # loads the model, once
        result = await asyncio.to_thread(cited, question, passages, answer)
        return CitedText(text=result.text, sources=[source.text for source in result.sources])

    @server.tool()
    @_saying_why
    async def expand(id: str) -> str:
        """Return the whole text of an earlier prune_context.

        Args:
            id: The id that prune_context returned.
        """
        if id not in texts:
            raise InputError(f"there is no text {id!r}; call prune_context with it again")
        return texts[id]

    return server


def _saying_why(
    tool: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return a tool whose errors reach the agent with their messages."""

    @wraps(tool)
    async def with_messages(*arguments: P.args, **settings: P.kwargs) -> T:
        try:
            return await tool(*arguments, **settings)
        except AT2Error as error:
            raise ToolError(str(error)) from error

    return with_messages
