"""Hugging Face Text Embeddings Inference: `/rerank` with `texts`."""

from __future__ import annotations

from typing import Any, Literal

from at2_rag.server.shapes.error_forms import ErrorForm
from at2_rag.server.shapes.ranking import Ranked, Ranking, RankingBody, Shape, Texts, relevance


class TeiBody(RankingBody):
    """The body of a request.

    `truncate` changes nothing: a text of any length is read, in windows.
    """

    query: str
    texts: Texts
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "left", "Right", "right"] = "Right"

    def ranking(self) -> Ranking:
        """Return the `Ranking` that the body asks for."""
        return Ranking(self.query, self.texts)


def reply(body: TeiBody, ranked: Ranked) -> list[dict[str, Any]]:
    """Return the answer, a bare list; with `raw_scores` scores before calibration."""
    rows = []
    for chunk in ranked.best:
        row = {"index": chunk.index, "score": chunk.score if body.raw_scores else relevance(chunk)}
        rows.append({**row, "text": chunk.text} if body.return_text else row)
    return rows


TEI = Shape("tei", TeiBody, reply, ErrorForm.TEI, frozenset({"texts", "raw_scores", "return_text"}))
