"""Voyage's `/v1/rerank`, told from others by `top_k` or `truncation`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from at2_rag.server.shapes.error_forms import ErrorForm
from at2_rag.server.shapes.ranking import Ranked, Ranking, RankingBody, Shape, Texts, relevance


class VoyageBody(RankingBody):
    """The body of a request.

    `truncation` changes nothing: a text of any length is read, in windows.
    """

    model: str | None = None
    query: str
    documents: Texts
    top_k: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    truncation: bool = True

    def ranking(self) -> Ranking:
        """Return the `Ranking` that the body asks for."""
        return Ranking(self.query, self.documents, self.model, self.top_k)


def reply(body: VoyageBody, ranked: Ranked) -> dict[str, Any]:
    """Return the answer."""
    rows = []
    for chunk in ranked.best:
        row: dict[str, Any] = {"index": chunk.index, "relevance_score": relevance(chunk)}
        if body.return_documents:
            row["document"] = chunk.text
        rows.append(row)
    return {
        "object": "list",
        "data": rows,
        "model": ranked.model,
        "usage": {"total_tokens": ranked.tokens},
    }


VOYAGE = Shape("voyage", VoyageBody, reply, ErrorForm.VOYAGE, frozenset({"top_k", "truncation"}))
