"""Cohere's `/v2/rerank` and `/v1/rerank`; the latter has what Jina's clients read, too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from at2_rag.server.shapes.error_forms import ErrorForm
from at2_rag.server.shapes.ranking import (
    MOST_PRIORITY,
    Ranked,
    Ranking,
    RankingBody,
    Shape,
    Texts,
    TextsOrObjects,
    as_object,
    relevance,
    text_of,
)

_Count = Annotated[int, Field(ge=1)]


class RelevantSpans(BaseModel):
    """Which parts of the documents are wanted."""

    model_config = ConfigDict(strict=True)

    mode: Literal["enabled", "disabled"]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_spans: _Count | None = None


class _CohereBody(RankingBody):
    model: str | None = None
    query: str
    top_n: _Count | None = None
    max_tokens_per_doc: _Count | None = None


class CohereV2Body(_CohereBody):
    """The body of `/v2/rerank`."""

    documents: Texts
    relevant_spans: RelevantSpans | None = None
    priority: Annotated[int, Field(ge=0, le=MOST_PRIORITY)] = 0

    @property
    def wanted_spans(self) -> RelevantSpans | None:
        """Which spans are wanted; None for none."""
        spans = self.relevant_spans
        return spans if spans is not None and spans.mode == "enabled" else None

    def ranking(self) -> Ranking:
        """Return the `Ranking` that the body asks for."""
        return Ranking(
            self.query,
            self.documents,
            self.model,
            self.top_n,
            self.max_tokens_per_doc,
            sentences=self.wanted_spans is not None,
            priority=self.priority,
        )


class CohereV1Body(_CohereBody):
    """The body of `/v1/rerank`, in which documents may be objects."""

    documents: TextsOrObjects
    rank_fields: Texts | None = None
    return_documents: bool = True

    def ranking(self) -> Ranking:
        """Return the `Ranking` that the body asks for, of the `rank_fields` of documents."""
        fields = self.rank_fields or ["text"]
        texts = [text_of(document, index, fields) for index, document in enumerate(self.documents)]
        return Ranking(self.query, texts, self.model, self.top_n, self.max_tokens_per_doc)


def reply_v2(body: CohereV2Body, ranked: Ranked) -> dict[str, Any]:
    """Return the answer of `/v2/rerank`; offsets of spans are code points."""
    results: list[dict[str, Any]] = []
    for chunk in ranked.best:
        row: dict[str, Any] = {"index": chunk.index, "relevance_score": relevance(chunk)}
        if body.wanted_spans and (spans := _spans(body.wanted_spans, ranked, chunk.index)):
            row["relevant_spans"] = spans
        results.append(row)
    return {"id": ranked.id, "results": results, "meta": _meta(ranked, "2")}


def reply_v1(body: CohereV1Body, ranked: Ranked) -> dict[str, Any]:
    """Return the answer of `/v1/rerank`."""
    results = []
    for chunk in ranked.best:
        row: dict[str, Any] = {"index": chunk.index, "relevance_score": relevance(chunk)}
        if body.return_documents:
            row["document"] = as_object(body.documents[chunk.index])
        results.append(row)
    return {
        "id": ranked.id,
        "model": ranked.model,
        "results": results,
        "usage": {"total_tokens": ranked.tokens},
        "meta": _meta(ranked, "1"),
    }


def _spans(wanted: RelevantSpans, ranked: Ranked, index: int) -> list[dict[str, Any]]:
    """Return the spans of a document, the most relevant first."""
    sentences = ranked.sentences.get(index, ())
    likely = [sentence for sentence in sentences if relevance(sentence) >= wanted.threshold]
    likely.sort(key=lambda sentence: -relevance(sentence))
    return [
        {"start": sentence.start, "end": sentence.end, "score": relevance(sentence)}
        for sentence in likely[: wanted.max_spans]
    ]


def _meta(ranked: Ranked, version: str) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": 0},
        "tokens": {"input_tokens": ranked.tokens, "output_tokens": 0},
        "answerable": ranked.result.answerable,
    }
    if ranked.warnings:
        meta["warnings"] = list(ranked.warnings)
    return meta


COHERE_V2 = Shape("cohere-v2", CohereV2Body, reply_v2, ErrorForm.COHERE)
COHERE_V1 = Shape("cohere-v1", CohereV1Body, reply_v1, ErrorForm.COHERE_V1)
