"""What all rerank shapes share: a question with documents, and the documents ranked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from at2_rag.errors import brief
from at2_rag.options import PruneOptions
from at2_rag.results import PruneResult, ScoredChunk, ScoredSentence
from at2_rag.server.errors import ErrorKind, RequestError
from at2_rag.server.service import Service
from at2_rag.server.shapes.error_forms import ErrorForm

B = TypeVar("B", bound=BaseModel)

# The first item that is wrong is all that is looked for: there may be millions.
Texts: TypeAlias = Annotated[list[str], Field(fail_fast=True)]
TextsOrObjects: TypeAlias = Annotated[list[str | dict[str, Any]], Field(fail_fast=True)]

MOST_PRIORITY = 999
"""The largest priority number, as Cohere has it; 0 is read first."""

# Equal for all rankings, so that they can be read together; everything is kept.
_RANK_CHUNKS = PruneOptions(top_k=sys.maxsize, max_overlap=None, multi_hop=False)
_RANK_SENTENCES = _RANK_CHUNKS.override(unit="sentence")


@dataclass(frozen=True, slots=True)
class Ranking:
    """A question with documents to be ranked.

    Attributes:
        query: The question.
        documents: Their texts.
        model: The name that the request gives to the model; None for any.
        top_n: How many of the best are asked for; None for all.
        max_tokens_per_document: Longer documents are cut to so many tokens; None for no cutting.
        sentences: Whether sentences are to be scored, too.
        priority: Lower numbers are read first.
    """

    query: str
    documents: Sequence[str]
    model: str | None = None
    top_n: int | None = None
    max_tokens_per_document: int | None = None
    sentences: bool = False
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Ranked:
    """The documents of a ranking, best first.

    Attributes:
        id: The request's.
        model: The model's own name.
        best: As many of the best as were asked for.
        result: The result of all documents.
        tokens: How many tokens the scoring model read.
        warnings: Plain sentences on what is out of the ordinary.
        sentences: Of each document, by its index, its sentences, in order; empty unless asked for.
    """

    id: str
    model: str
    best: Sequence[ScoredChunk]
    result: PruneResult
    tokens: int
    warnings: Sequence[str] = ()
    sentences: Mapping[int, Sequence[ScoredSentence]] = field(default_factory=dict)


class RankingBody(BaseModel):
    """The body of a request, as a shape has it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    def ranking(self) -> Ranking:
        """Return the `Ranking` that the body asks for.

        Raises:
            RequestError: If a document can't be used.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Shape:
    """A wire shape.

    Attributes:
        name: For logs.
        body: The body of its requests.
        reply: Makes JSON-ready values of a body and its ranked documents.
        error_form: How its errors are written.
        keys: Keys of which any tells a request of this shape from others on its paths.
    """

    name: str
    body: type[RankingBody]
    reply: Callable[[Any, Ranked], Any]
    error_form: ErrorForm
    keys: frozenset[str] = frozenset()


def relevance(chunk: ScoredChunk | ScoredSentence) -> float:
    """Return the calibrated probability, in [0, 1]."""
    assert chunk.probability is not None  # a service has calibrated head weights
    return chunk.probability


async def rank(service: Service, ranking: Ranking, *, identity: str) -> Ranked:
    """Return the documents of a ranking by their scores, equal ones in the order of the request.

    Raises:
        RequestError: If the model is unknown, there are no documents, or too many tokens.
        InputError: If the question or a document can't be used.
    """
    service.check_model(ranking.model)
    if not ranking.documents:
        raise RequestError(ErrorKind.NO_DOCUMENTS, "there are no documents; pass at least one")
    documents, warnings = list(ranking.documents), []
    if (most := ranking.max_tokens_per_document) is not None:
        documents, cut = await service.cut(documents, most)
        warnings = [
            f"Of document {index} only the first {most:,} tokens were read." for index in cut
        ]
    options = _RANK_SENTENCES if ranking.sentences else _RANK_CHUNKS
    [job] = await service.jobs([(ranking.query, documents, ())], options, priority=ranking.priority)
    [future] = service.submit([job])
    result = await future
    best = sorted((*result.kept, *result.dropped), key=lambda chunk: (-chunk.score, chunk.index))
    sentences: dict[int, list[ScoredSentence]] = {}
    for sentence in result.sentences:
        sentences.setdefault(sentence.chunk_index, []).append(sentence)
    return Ranked(
        identity,
        service.pruner.model_name,
        best[: ranking.top_n],
        result,
        job.tokens,
        (*warnings, *result.notes),
        sentences,
    )


def parsed(kind: type[B], body: Mapping[str, Any]) -> B:
    """Return a body as a shape has it.

    Raises:
        RequestError: If it doesn't fit; the message has the first value that doesn't.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = ""
    value: Any = body  # a location also names types, which are no keys of the body
    for step in first["loc"]:
        if isinstance(step, int) and isinstance(value, list) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
        elif isinstance(value, Mapping) and (step in value or first["type"] == "missing"):
            path, value = f"{path}.{step}".lstrip("."), value.get(str(step))
    reason = first["msg"][:1].lower() + first["msg"][1:]
    shown = "missing" if first["type"] == "missing" else brief(value)
    raise RequestError(ErrorKind.INVALID_INPUT, f"{path or 'the body'} is {shown}: {reason}")


def text_of(document: str | Mapping[str, Any], index: int, fields: Sequence[str]) -> str:
    """Return the text of a document that may be an object: its fields, each on a line.

    Raises:
        RequestError: If it has none of the fields, or one of them isn't text.
    """
    if isinstance(document, str):
        return document
    values = [document[name] for name in fields if name in document]
    if not values or not all(isinstance(value, str) for value in values):
        raise RequestError(
            ErrorKind.INVALID_INPUT,
            f"documents[{index}] is {brief(document)}; pass a string, or an object whose "
            f"{' and '.join(fields)} are text",
        )
    return "\n".join(values)


def as_object(document: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document as the object that answers have."""
    return {"text": document} if isinstance(document, str) else document
