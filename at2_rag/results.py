"""What public calls return: plain frozen values, no torch."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from at2_rag.arrays import Floats
from at2_rag.errors import InputError, brief
from at2_rag.text.chunks import DEFAULT_ELLIPSIS, DEFAULT_SEPARATOR, Chunk, join_spans
from at2_rag.text.units import UnitSpan

if TYPE_CHECKING:
    from rich.console import Console

_RESULT_FIELDS = ("index", "score", "probability", "spans", "kept_text", "duplicates", "original")
"""Fields of a result in JSON; a caller's entries of these names are under "original"."""

_MOST_BITS = 2000  # of an integer that Python always writes in digits
_MOST_LEVELS = 200  # of nested JSON; the interpreter and most readers take 1,000 and less


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk with its score.

    Attributes:
        chunk: The caller's own object, untouched.
        score: Larger means more useful for the query. A logit: the softmax over the scores of one
            call is each chunk's estimated share; but a share of attention with head weights whose
            `score_scale` is "additive", such as "uniform". NaN if the chunk wasn't scored.
        index: Its index in the caller's list, from 0.
        text: The chunk's text, unchanged.
        title: The chunk's title, unchanged, or None.
        spans: The half-open ranges of characters of `text` that are kept, ascending, if the chunk
            was trimmed: with `unit="sentence"`, and the best chunk if it alone exceeds
            `max_tokens`. None if all of it is kept.
        ellipsis: Text between two spans.
        probability: The probability, in [0, 1], that the chunk is relevant: that it is evidence for
            the answer. None if the head weights aren't calibrated, or nothing was scored.
        duplicates: Ids (for a chunk without an id, its index) of other chunks that were dropped, or
            trimmed, since what they say is kept here (`PruneOptions.max_overlap`).
        id: The chunk's id, unchanged, or None.
    """

    chunk: Any = field(hash=False)
    score: float
    index: int
    text: str
    title: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    ellipsis: str = DEFAULT_ELLIPSIS
    probability: float | None = None
    duplicates: tuple[str | int, ...] = ()
    id: str | None = None

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
        """The chunk as models see it: the title on a line by itself, then what is kept."""
        return Chunk(self.kept_text, self.title).rendered

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: `index`, `score` (None for NaN), then the caller's fields.

        `probability` is there if there is one, `spans` and `kept_text` for a trimmed chunk, and
        `duplicates` if there are any. If the
        caller's mapping has an entry of one of these names, such as a retriever's `score`, it is
        under `original`.
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
        if self.duplicates:
            fields["duplicates"] = list(self.duplicates)
        if isinstance(self.chunk, Chunk):
            metadata = self.chunk.metadata
            return {
                **fields,
                "id": self.chunk.id,
                "metadata": dict(metadata) if isinstance(metadata, Mapping) else metadata,
            }
        if not isinstance(self.chunk, Mapping):
            return fields
        entries = {_text(key): value for key, value in self.chunk.items()}
        hidden = {name: entries.pop(name) for name in _RESULT_FIELDS if name in entries}
        return {**fields, **entries, **({"original": hidden} if hidden else {})}


def scored_chunks(
    objects: Sequence[Any],
    views: Sequence[Chunk],
    scores: Floats,
    probabilities: Floats | None = None,
) -> tuple[ScoredChunk, ...]:
    """Return the caller's objects with their scores [S], and probabilities [S] if there are any."""
    likely = [None] * len(objects) if probabilities is None else probabilities.tolist()
    return tuple(
        ScoredChunk(
            chunk=chunk,
            score=float(score),
            index=index,
            text=view.text,
            title=view.title,
            probability=probability,
            id=view.id,
        )
        for index, (chunk, view, score, probability) in enumerate(
            zip(objects, views, scores, likely, strict=True)
        )
    )


@dataclass(frozen=True, slots=True)
class BreakEven:
    """What one pruning cost and saved, at the rates that were stated.

    Attributes:
        tokens_saved: Context tokens that the generator doesn't have to read.
        seconds_spent: How long pruning took, counting and selecting included.
        seconds_saved: How long the generator would have read those tokens; None if its speed wasn't
            stated.
        money_saved: What the generator would have charged for those tokens; None if no price was
            stated.
    """

    tokens_saved: int
    seconds_spent: float
    seconds_saved: float | None
    money_saved: float | None

    @property
    def seconds_gained(self) -> float | None:
        """Seconds saved less those spent, negative where pruning took longer than it saved."""
        return None if self.seconds_saved is None else self.seconds_saved - self.seconds_spent


@dataclass(frozen=True, slots=True, repr=False)
class PruneResult:
    """What pruning kept and dropped; together they are exactly the caller's chunks.

    `str(result)` sums it up in a line, `show()` prints it, and a notebook shows it as a page.

    Attributes:
        query: The question.
        kept: Chunks to pass on, by score or as in the input (`PruneOptions.order`); with
            `unit="sentence"` by the score of the best kept unit of each.
        dropped: All others, in the same kind of order.
        tokens_before: Tokens of all chunks as one context (titles and separators included), by
            the pruner's token counter.
        tokens_after: Tokens of `context`.
        separator: Text between two chunks of the context.
        timings: Seconds per stage: `count`, `layout`, `wait` (until a thread may read, for calls
            from other threads than the main one), `encode` and `question` (or `joint` instead),
            `select` (in which a best chunk that exceeds `max_tokens` is read by its sentences);
            and the `total`. A stage that didn't run is not there.
        notes: Plain sentences about anything out of the ordinary, e.g. that nothing fitted.
        error: Why scoring failed, with `on_error="keep_all"`; else None.
        skipped: Whether the context was kept as it is for being small
            (`PruneOptions.skip_below_tokens`).
        answerable: The probability, in [0, 1], that any of the chunks holds the answer; None if the
            head weights aren't calibrated, or nothing was scored.
        sentences: The units of every chunk that the limits chose among, in order: sentences, some
            with their neighbours, and whole tables, lists and blocks of code; empty without
            `unit="sentence"`, or if nothing was scored.
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
    sentences: tuple[ScoredSentence, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "timings", dict(self.timings))

    def __str__(self) -> str:
        return (
            f"Kept {len(self.kept):,} of {len(self.kept) + len(self.dropped):,} chunks, "
            f"{self.tokens_after:,} of {self.tokens_before:,} tokens, in "
            f"{self.timings.get('total', 0.0):.2f} s."
        )

    def __repr__(self) -> str:
        return f"<PruneResult: {self}>"

    def show(self, console: Console | None = None) -> None:
        """Print every passage to a `rich` console, None for standard output.

        What was dropped or cut is struck through, and a cut sentence in [-brackets-] where the
        console is a file. With `unit="sentence"` sentences that are probably relevant are bold.
        """
        from rich.console import Console

        from at2_rag.report.result_view import print_view

        print_view(self, console or Console())

    def to_html(self) -> str:
        """Return a page that shows the same; it loads nothing, and all text is escaped."""
        from at2_rag.report.result_view import html_view

        return html_view(self, page=True)

    def _repr_html_(self) -> str:
        from at2_rag.report.result_view import html_view

        return html_view(self, page=False)

    @property
    def chunks(self) -> tuple[Any, ...]:
        """The kept chunks as the caller's own objects."""
        return tuple(scored.chunk for scored in self.kept)

    @property
    def texts(self) -> tuple[str, ...]:
        """The kept chunks' texts; of trimmed ones what is kept."""
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
        self, *, tokens_per_second: float | None = None, price_per_million: float | None = None
    ) -> BreakEven:
        """Return what pruning cost, and what it saved at the generator.

        Args:
            tokens_per_second: How fast the generator reads a prompt; None if unknown.
            price_per_million: What the generator charges for a million prompt tokens, as the
                pruner counts them; None if unknown.

        Raises:
            InputError: If a rate isn't a finite number of at least 0, or the speed is 0.
        """
        _check_rate("tokens_per_second", tokens_per_second)
        _check_rate("price_per_million", price_per_million)
        tokens, seconds = self.tokens_before - self.tokens_after, self.timings.get("total", 0.0)
        return BreakEven(
            tokens_saved=tokens,
            seconds_spent=seconds,
            seconds_saved=None if tokens_per_second is None else tokens / tokens_per_second,
            money_saved=None if price_per_million is None else tokens / 1e6 * price_per_million,
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
            "sentences": [sentence.to_dict() for sentence in self.sentences],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the result as ASCII-only JSON.

        NumPy's numbers are numbers, arrays and tensors are lists. NaN and infinity become null,
        what else JSON can't hold is written by `str`.

        Raises:
            InputError: If metadata is nested more than about 200 levels deep, or holds itself.
        """
        return json.dumps(_json_ready(self.to_dict()), indent=indent, allow_nan=False)


@dataclass(frozen=True, slots=True)
class ScoredSentence:
    """A sentence of a chunk with its score.

    Attributes:
        chunk_index: The chunk's index in the caller's list, from 0.
        start: Where the sentence starts in the chunk's text, in characters.
        end: Where it ends, exclusive.
        text: The sentence, `chunk.text[start:end]` to the letter.
        score: By the same head weights as the chunk's; larger means that more attention went
            there: the answer's in attribution, else the question's.
        probability: The probability, in [0, 1], that it is evidence for the answer; None if the
            head weights aren't calibrated, and outside of a `PruneResult`.
    """

    chunk_index: int
    start: int
    end: int
    text: str
    score: float
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without the text, which is in the chunk's."""
        return {
            "chunk_index": self.chunk_index,
            "start": self.start,
            "end": self.end,
            "score": None if math.isnan(self.score) else self.score,
            "probability": self.probability,
        }


def scored_sentences(
    chunks: Sequence[Chunk],
    spans: Sequence[UnitSpan],
    scores: Sequence[float] | Floats,
    probabilities: Floats | None = None,
) -> tuple[ScoredSentence, ...]:
    """Return the sentences at `spans` with their scores, and probabilities if there are any."""
    likely = [None] * len(spans) if probabilities is None else probabilities.tolist()
    return tuple(
        ScoredSentence(index, start, end, chunks[index].text[start:end], float(score), probability)
        for (index, start, end), score, probability in zip(spans, scores, likely, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Attribution:
    """What an answer, or a part of it, rests on.

    Attributes:
        query: The question.
        answer: The answer, whole.
        span: The part attributed, a half-open range of characters in the answer.
        chunks: Every chunk with its score, in input order.
        sentences: Every sentence of every chunk, in order; empty without `unit="sentence"`.
    """

    query: str
    answer: str
    span: tuple[int, int]
    chunks: tuple[ScoredChunk, ...]
    sentences: tuple[ScoredSentence, ...] = ()

    @property
    def best_chunks(self) -> tuple[ScoredChunk, ...]:
        """The chunks by score, best first; equal ones in input order."""
        return tuple(sorted(self.chunks, key=lambda chunk: -chunk.score))

    @property
    def best_sentences(self) -> tuple[ScoredSentence, ...]:
        """The sentences by score, best first; equal ones in input order."""
        return tuple(sorted(self.sentences, key=lambda sentence: -sentence.score))


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of an answer with its sources.

    Attributes:
        start: Where it starts in the answer, in characters.
        end: Where it ends, exclusive.
        text: The sentence, `answer[start:end]` to the letter.
        sources: Numbers of its sources, from 1, best first; empty if no chunk has the least share.
        shares: Each source's share of the sentence's score, in (0, 1].
    """

    start: int
    end: int
    text: str
    sources: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer with numbered sources.

    Attributes:
        query: The question.
        answer: The answer, unchanged.
        sentences: Its sentences, in order.
        sources: The cited chunks; number n of a marker is `sources[n - 1]`. Their scores are for
            the whole answer.
    """

    query: str
    answer: str
    sentences: tuple[CitedSentence, ...]
    sources: tuple[ScoredChunk, ...]

    @property
    def text(self) -> str:
        """The answer with a marker such as ` [1][3]` after each sentence that has sources."""
        parts, end = [], 0
        for sentence in self.sentences:
            markers = "".join(f"[{number}]" for number in sentence.sources)
            parts.append(self.answer[end : sentence.end] + (f" {markers}" if markers else ""))
            end = sentence.end
        return "".join(parts) + self.answer[end:]


def _check_rate(name: str, rate: float | None) -> None:
    if rate is None:
        return
    number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    positive = name == "tokens_per_second"
    if not number or not 0 <= rate <= sys.float_info.max or (positive and rate == 0):
        least = "above 0" if positive else "of at least 0"
        raise InputError(f"{name} is {brief(rate)}; pass a finite number {least}, or None")


def _json_ready(value: Any, level: int = 0) -> Any:
    if level > _MOST_LEVELS:
        raise InputError(
            f"metadata is nested more than {_MOST_LEVELS} levels deep, or holds itself, which JSON "
            "can't; flatten it, or use to_dict()"
        )
    if isinstance(value, Mapping):
        return {_text(key): _json_ready(item, level + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(item, level + 1) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value) if int(value).bit_length() <= _MOST_BITS else _text(value)
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, np.generic) and hasattr(value, "__array__"):
        with suppress(Exception):  # a sparse tensor has no list
            return _json_ready(value.tolist(), level + 1)
    return _text(value)


def _text(value: object) -> str:
    """Return a value as text, whatever its class or the interpreter has against it."""
    try:
        return str(value)
    except Exception:
        return hex(value) if isinstance(value, int) else object.__repr__(value)
