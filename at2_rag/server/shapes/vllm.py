"""vLLM's `/rerank`, which answers Jina's clients as well."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from at2_rag.server.shapes.error_forms import ErrorForm
from at2_rag.server.shapes.ranking import (
    MOST_PRIORITY,
    Ranked,
    Ranking,
    RankingBody,
    Shape,
    TextsOrObjects,
    as_object,
    relevance,
    text_of,
)


class VllmBody(RankingBody):
    """The body of a request.

    `truncate_prompt_tokens` changes nothing: a text of any length is read, in windows. `priority`
    is of any size, and counts as the nearest that Cohere has.
    """

    model: str | None = None
    query: str
    documents: TextsOrObjects
    top_n: Annotated[int, Field(ge=0)] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    truncate_prompt_tokens: int | None = None
    priority: int = 0
    return_documents: bool = True

    def ranking(self) -> Ranking:
        """Return the `Ranking` that the body asks for; a `top_n` of 0 is for all documents."""
        texts = [
            text_of(document, index, ["text"]) for index, document in enumerate(self.documents)
        ]
        return Ranking(
            self.query,
            texts,
            self.model,
            self.top_n or None,
            self.max_tokens_per_doc,
            priority=min(max(self.priority, 0), MOST_PRIORITY),
        )


def reply(body: VllmBody, ranked: Ranked) -> dict[str, Any]:
    """Return the answer."""
    results = []
    for chunk in ranked.best:
        row: dict[str, Any] = {"index": chunk.index, "relevance_score": relevance(chunk)}
        if body.return_documents:
            row["document"] = as_object(body.documents[chunk.index])
        results.append(row)
    return {
        "id": ranked.id,
        "model": ranked.model,
        "usage": {"total_tokens": ranked.tokens, "prompt_tokens": ranked.tokens},
        "results": results,
    }


VLLM = Shape(
    "vllm",
    VllmBody,
    reply,
    ErrorForm.VLLM,
    frozenset(
        {"truncate_prompt_tokens", "truncation_side", "max_tokens_per_query", "use_activation"}
    ),
)
