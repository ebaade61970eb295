"""What goes into the pruner and what comes out: plain frozen values, no torch.

A chunk is whatever the caller retrieved: a string, a mapping or a `Chunk`. The caller's own
object is carried through untouched in `ScoredChunk.chunk`; `as_chunk` gives the normalised view
that the scoring model reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, TypeAlias

from at2_rag.break_even import BreakEven
from at2_rag.errors import ChunkTypeError, InputError
from at2_rag.text.sentences import LINE_BREAK

DEFAULT_SEPARATOR = "\n\n"
DEFAULT_ELLIPSIS = "…"

_OWN_FIELDS = ("index", "score", "probability", "spans", "kept_text")
"""Names of a result's fields that a caller's mapping may have, too."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One retrieved passage.

    Attributes:
        text: The passage, any string (empty and whitespace-only ones are scored like others).
        title: Heading shown to the models above the text; None or blank for none.
        id: The caller's identifier; never interpreted.
        metadata: Anything the caller wants to find again; never interpreted.
        retrieval_score: What the retriever gave it, on any scale, larger is better (turn the sign
            of distances); None or NaN where that isn't known. Read with `prior="score"` only, and
            with `prior="cosine"`, for which it has to be a cosine.
    """

    text: str
    title: str | None = None
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    retrieval_score: float | None = None

    @property
    def rendered(self) -> str:
        """The chunk as models see it: the title on a line of its own, then the text."""
        return f"{self.title}\n{self.text}" if self.title and self.title.strip() else self.text


ChunkLike: TypeAlias = str | Mapping[str, Any] | Chunk

Prior: TypeAlias = Literal["score", "order", "cosine"]
"""What of the retriever weighs in: ranks by the chunks' `retrieval_score`, or by their order, or
the `retrieval_score` itself, a cosine of embeddings."""


def as_chunk(value: ChunkLike, index: int) -> Chunk:
    """Return the normalised view of the caller's chunk.

    Args:
        value: A string, a mapping with at least `text`, or a `Chunk`; a mapping's other keys are
            a chunk's other attributes.
        index: The chunk's place in the caller's list, for the error message.

    Raises:
        ChunkTypeError: If `value` is something else, its text or title isn't a string, or its
            retrieval score no number.
    """
    if isinstance(value, str):
        return Chunk(text=value)
    if isinstance(value, Mapping):
        if "text" not in value:
            keys = ", ".join(sorted(map(str, value))) or "none"
            raise ChunkTypeError(
                f"chunk {index} is a mapping without the key 'text' (its keys: {keys}); "
                "pass {'text': ..., 'title': ...}"
            )
        chunk_id = value.get("id")
        metadata = value.get("metadata")
        value = Chunk(
            text=value["text"],
            title=value.get("title"),
            id=None if chunk_id is None else str(chunk_id),
            metadata=metadata if isinstance(metadata, Mapping) else {},
            retrieval_score=value.get("retrieval_score"),
        )
    if not isinstance(value, Chunk):
        raise ChunkTypeError(
            f"chunk {index} is a {type(value).__name__}; pass a string, a mapping with 'text', "
            "or a Chunk"
        )
    if not isinstance(value.text, str):
        raise ChunkTypeError(
            f"chunk {index} has a text of type {type(value.text).__name__}; pass a string"
        )
    if value.title is not None and not isinstance(value.title, str):
        raise ChunkTypeError(
            f"chunk {index} has a title of type {type(value.title).__name__}; pass a string or None"
        )
    score = value.retrieval_score
    if score is not None and (isinstance(score, bool) or not isinstance(score, Real)):
        raise ChunkTypeError(
            f"chunk {index} has a retrieval_score of type {type(score).__name__} ({score!r:.40}); "
            "pass a number, larger is better, or None"
        )
    return value


def replace_surrogates(text: str) -> str:
    """Return `text` as tokenizers take it: surrogate pairs joined, lone ones made U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def join_spans(text: str, spans: Sequence[tuple[int, int]], ellipsis: str) -> str:
    """Return ranges of a text to the letter, with the ellipsis between two.

    White space stands around it, a line break where one was left out.
    """
    parts: list[str] = []
    place = 0
    for number, (start, end) in enumerate(spans):
        if number:
            space = "\n" if LINE_BREAK.search(text, place, start) else " "
            parts.append(f"{space}{ellipsis}{space}" if ellipsis else space)
        parts.append(text[start:end])
        place = end
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk with its score.

    Attributes:
        chunk: The caller's own object, untouched.
        score: Larger means more useful for the query. On the scale of a logit: a softmax over
            the scores of one call is the estimated share of each chunk; but not with head weights
            whose `score_scale` is "additive", as that of "uniform" is, whose scores are shares of
            attention. NaN only where scoring failed and the caller asked for
            `on_error="keep_all"`, or where the context was small and not scored at all.
        index: Place in the caller's list, from 0.
        text: The chunk's text, as given.
        title: The chunk's title, as given, or None.
        spans: Where it was trimmed (`unit="sentence"`): the half-open ranges of characters of
            `text` that are kept, ascending; None where all of it is.
        ellipsis: What stands for what is left out between two of them.
        probability: How likely it is that the chunk matters for the answer, in [0, 1]: that it is
            evidence for it (or, if `Calibration.outcome` is "removal", that the answer suffers
            without it); None where the head weights aren't calibrated, or nothing was scored.
    """

    chunk: Any = field(hash=False)
    score: float
    index: int
    text: str
    title: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    ellipsis: str = DEFAULT_ELLIPSIS
    probability: float | None = None

    @property
    def relevance(self) -> float:
        """The probability where there is one, else the score."""
        return self.score if self.probability is None else self.probability

    @property
    def kept_text(self) -> str:
        """The text, or what is kept of it: to the letter, joined by the ellipsis."""
        if self.spans is None:
            return self.text
        return join_spans(self.text, self.spans, self.ellipsis)

    @property
    def rendered(self) -> str:
        """The chunk as models see it: the title on a line of its own, then what is kept."""
        return Chunk(self.kept_text, self.title).rendered

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: `index`, `score` (None for NaN), then the caller's fields.

        Where there is one `probability` is there, too, and of a trimmed chunk `spans` and
        `kept_text`. Where a mapping has one of these (but title and text) of its own, a retriever's
        score, say, it is under `given`, by its name.
        """
        fields: dict[str, Any] = {
            "index": self.index,
            "score": None if math.isnan(self.score) else self.score,
            "title": self.title,
            "text": self.text,
        }
        if self.probability is not None:
            fields["probability"] = self.probability
        if self.spans is not None:
            fields |= {"spans": list(map(list, self.spans)), "kept_text": self.kept_text}
        if isinstance(self.chunk, Mapping):
            given = {str(key): value for key, value in self.chunk.items()}
            hidden = {name: given[name] for name in _OWN_FIELDS if name in given}
            rest = {
                name: value
                for name, value in given.items()
                if name not in fields and name not in hidden
            }
            return {**fields, **rest, **({"given": hidden} if hidden else {})}
        if isinstance(self.chunk, Chunk):
            return {**fields, "id": self.chunk.id, "metadata": dict(self.chunk.metadata)}
        return fields


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What pruning kept and dropped; together they are exactly the caller's chunks.

    Attributes:
        query: The question.
        kept: Chunks to pass on, in the order asked for (by score, or as in the input); with
            `unit="sentence"` by the score of the best unit that is kept of each.
        dropped: All others, in the same kind of order.
        tokens_before: Tokens of all chunks as one context (titles and separators included), by
            the pruner's token counter.
        tokens_after: The same for the kept chunks; equals the count of `context`.
        separator: What stands between two chunks of the context.
        timings: Seconds per stage: `count`, `layout`, `wait` (for other threads that read),
            `encode` and `question` (or in their place `joint`), `select`; and the `total`. A stage
            that didn't run is not there.
        notes: Plain sentences about anything out of the ordinary, e.g. that nothing fitted.
        error: Why scoring failed, where the caller asked for `on_error="keep_all"`; else None.
        skipped: Whether the context was so small that it was kept as it is, see
            `skip_below_tokens` of `AT2Pruner.prune`.
        answerable: How likely it is that the answer stands in any of the chunks, in [0, 1]; None
            where the head weights aren't calibrated, or nothing was scored.
    """

    query: str
    kept: tuple[ScoredChunk, ...]
    dropped: tuple[ScoredChunk, ...]
    tokens_before: int
    tokens_after: int
    separator: str = DEFAULT_SEPARATOR
    timings: Mapping[str, float] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()
    error: str | None = None
    skipped: bool = False
    answerable: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "timings", dict(self.timings))

    @property
    def texts(self) -> tuple[str, ...]:
        """The kept chunks' texts, as given; of trimmed ones what is kept."""
        return tuple(scored.kept_text for scored in self.kept)

    @property
    def context(self) -> str:
        """The kept chunks with their titles as one string, ready for a prompt."""
        return self.separator.join(scored.rendered for scored in self.kept)

    @property
    def scored(self) -> bool:
        """Whether the chunks were scored; else all were kept, and their scores are NaN."""
        return self.error is None and not self.skipped

    def break_even(
        self,
        *,
        tokens_per_second: float | None = None,
        price_per_million: float | None = None,
        machine_price_per_hour: float | None = None,
    ) -> BreakEven:
        """Say what pruning cost, and what it saved at the generator.

        Args:
            tokens_per_second: How fast the generator reads a prompt; None if it isn't known.
            price_per_million: What the generator charges for a million prompt tokens, as the
                pruner counts them; None if it isn't known.
            machine_price_per_hour: What the machine that scores costs; None for nothing.

        Raises:
            InputError: If a rate isn't a finite number, the speed isn't above 0, or a price is
                below.
        """
        _check_rate("tokens_per_second", tokens_per_second, positive=True)
        _check_rate("price_per_million", price_per_million)
        _check_rate("machine_price_per_hour", machine_price_per_hour)
        saved, spent = self.tokens_before - self.tokens_after, self.timings.get("total", 0.0)
        return BreakEven(
            tokens_saved=saved,
            seconds_spent=spent,
            seconds_saved=None if tokens_per_second is None else saved / tokens_per_second,
            money_spent=None
            if machine_price_per_hour is None
            else spent / 3600 * machine_price_per_hour,
            money_saved=None if price_per_million is None else saved / 1e6 * price_per_million,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values; metadata is passed through as it is."""
        return {
            "query": self.query,
            "kept": [scored.to_dict() for scored in self.kept],
            "dropped": [scored.to_dict() for scored in self.dropped],
            "context": self.context,
            "separator": self.separator,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "timings": dict(self.timings),
            "notes": list(self.notes),
            "error": self.error,
            "skipped": self.skipped,
            "answerable": self.answerable,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the result as ASCII-only JSON.

        NaN and infinity become null, what else JSON can't hold is written by `str`.
        """
        values = _json_ready(self.to_dict())
        return json.dumps(values, indent=indent, default=str, allow_nan=False)


def _check_rate(name: str, rate: float | None, *, positive: bool = False) -> None:
    if rate is None:
        return
    number = isinstance(rate, (int, float)) and not isinstance(rate, bool) and math.isfinite(rate)
    if not number or rate < 0 or (positive and rate == 0):
        least = "above 0" if positive else "of at least 0"
        raise InputError(f"{name} is {rate!r}; pass a finite number {least}, or None")


def _json_ready(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
