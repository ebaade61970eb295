"""The library's own calls over HTTP: `/v1/prune`, `/v1/attribute` and `/v1/index`."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import reduce
from operator import or_
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from at2_rag.errors import brief
from at2_rag.options import PruneOptions, plain_types
from at2_rag.results import Attribution, CitedAnswer, PruneResult
from at2_rag.server.shapes.ranking import Texts, TextsOrObjects

_MOST_PROTECTED = 100

Chunks = Annotated[
    TextsOrObjects,
    Field(description="Strings, or objects with text, title, id, metadata and retrieval_score."),
]


# No regular expression from outside is run: some take longer than anybody waits, and all the while
# nothing else in the process runs.
_Protect = Annotated[Texts, Field(max_length=_MOST_PROTECTED)]
_PROTECT_HELP = "Keep every chunk (or sentence) that has one of these texts in it."


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_key(cls, body: Any) -> Any:
        """Refuse the first unknown key, not all of them, of which there may be a million."""
        for key in body if isinstance(body, dict) else ():
            if key not in cls.model_fields:
                what = {"key": brief(key)}
                raise PydanticCustomError(
                    "unknown_key", "its key {key} is unknown; remove it", what
                )
        return body


class Question(_Body):
    """A question with its chunks."""

    query: str
    chunks: Chunks
    history: TextsOrObjects = Field(
        default=[], description="The user's earlier questions, or messages with role and content."
    )


class _Options(_Body):
    model: str | None = None

    def options(self) -> dict[str, Any]:
        """Return the options that were set."""
        names = [option.name for option in fields(PruneOptions)]
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


def _with_options(base: type[Any], name: str, doc: str) -> Any:
    """Return a subclass with a field for each option; what isn't set is the server's default."""
    types = plain_types(PruneOptions)
    types["protect"] = (_Protect, NoneType)
    definitions: dict[str, Any] = {
        option.name: (
            reduce(or_, types[option.name]),
            Field(
                default=option.default,
                description=_PROTECT_HELP if option.name == "protect" else option.metadata["help"],
            ),
        )
        for option in fields(PruneOptions)
    }
    return create_model(name, __base__=base, __module__=__name__, __doc__=doc, **definitions)


class PruneBody(_Options, Question):
    """The body of `/v1/prune` with one question."""


class PruneBatchBody(_Options):
    """The body of `/v1/prune` with several questions and the same options for all."""

    requests: Annotated[list[Question], Field(fail_fast=True)]


if not TYPE_CHECKING:
    PruneBody = _with_options(PruneBody, "PruneBody", PruneBody.__doc__)
    PruneBatchBody = _with_options(PruneBatchBody, "PruneBatchBody", PruneBatchBody.__doc__)


class AttributeBody(_Body):
    """The body of `/v1/attribute`."""

    query: str
    chunks: Chunks
    answer: str
    span: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    unit: Literal["chunk", "sentence"] = "chunk"
    max_sources: Annotated[int, Field(ge=1)] = 1
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    model: str | None = None


class IndexBody(_Body):
    """The body of `/v1/index`."""

    chunks: Chunks
    model: str | None = None


def prune_line(index: int, result: PruneResult) -> bytes:
    """Return a line of a streamed answer with the result of one question."""
    return f'{{"index": {index}, "result": {result.to_json()}}}\n'.encode()


def error_line(index: int, error: dict[str, Any]) -> bytes:
    """Return a line of a streamed answer for a question that failed."""
    return (json.dumps({"index": index, **error}) + "\n").encode()


def attribution_reply(attribution: Attribution, cited: CitedAnswer) -> dict[str, Any]:
    """Return the answer of `/v1/attribute`."""
    return {
        "query": attribution.query,
        "answer": attribution.answer,
        "span": list(attribution.span),
        "chunks": [chunk.to_dict() for chunk in attribution.chunks],
        "sentences": [sentence.to_dict() for sentence in attribution.sentences],
        "cited_text": cited.text,
        "cited_sentences": [
            {
                "start": sentence.start,
                "end": sentence.end,
                "sources": list(sentence.sources),
                "shares": list(sentence.shares),
            }
            for sentence in cited.sentences
        ],
        "sources": [source.index for source in cited.sources],
    }
