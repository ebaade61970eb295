"""A question with its chunks and options, checked and ready to be scored."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from at2_rag.arrays import Floats
from at2_rag.options import PruneOptions
from at2_rag.progress import Stopwatch
from at2_rag.pruning.history import Turn, asked_in
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.prior import prior_terms
from at2_rag.text.chunks import Chunk, ChunkLike, checked_chunks, join_spans
from at2_rag.text.echo import without_echoes
from at2_rag.text.protection import protected_spans
from at2_rag.text.sentences import Span
from at2_rag.text.tokens import TokenCounter
from at2_rag.text.units import UnitSpan, unit_spans

_TOP_P_NOTE = (
    "top_p means little with these head weights: their scores add up, as shares of attention "
    "do, and are not logits, which the softmax over them takes them for."
)
_ECHO_NOTE = "{} the question; only what else is said there was scored."
_TURN = re.compile(
    r"^[^\w\n]{0,9}(?:user|human|assistant|ai|bot|system)[^\w\n]{0,9}:",
    re.IGNORECASE | re.MULTILINE,
)
_TURNS_NOTE = (
    "The query has several turns of a conversation, and all of them draw attention; pass its "
    "last question alone, and the turns before it as history."
)
_READ_NOTE = "The question refers to an earlier one, and was read as {!r}."
_NO_PRIOR_NOTE = "prior={!r} changed nothing: no chunk has a retrieval_score."

BatchRequest: TypeAlias = (
    tuple[str, Iterable[ChunkLike]] | tuple[str, Iterable[ChunkLike], Iterable[Turn]]
)
"""A query, its chunks, and maybe the turns before it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ContextFormat:
    """How kept chunks become one context, and how its tokens are counted."""

    count: TokenCounter
    separator: str
    ellipsis: str

    def tokens_of(self, texts: Iterable[str]) -> int:
        """Return the tokens of rendered chunks as one context."""
        return self.count(self.separator.join(texts))

    def rendered(self, chunk: Chunk, spans: Sequence[Span] | None) -> str:
        """Return a chunk as models see it, or what is kept of it."""
        if spans is None:
            return chunk.rendered
        return Chunk(join_spans(chunk.text, spans, self.ellipsis), chunk.title).rendered


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A question with its chunks and options.

    Attributes:
        query: The question.
        read_query: The same as the model reads it: after the question that it refers to, if any.
        objects: The caller's objects.
        chunks: The S chunks, normalised.
        read_chunks: [S], the same as the model reads them: without echoes of the question, which
            are not looked for where nothing will be read.
        options: The options, with a limit that the head weights understand.
        units: The U units that the limits choose among; a chunk is a unit that covers its text.
        protected: For each chunk the ranges of its text that must be kept.
        prior: [S], what the retriever adds to the chunks' scores; None for nothing.
        notes: What is out of the ordinary with the options.
        tokens: Tokens of all chunks as one context.
        seconds: Seconds per stage that making this took, and in `total`.
    """

    query: str
    read_query: str
    objects: Sequence[Any]
    chunks: Sequence[Chunk]
    read_chunks: Sequence[Chunk]
    options: PruneOptions
    units: Sequence[UnitSpan]
    protected: Sequence[Sequence[Span]]
    prior: Floats | None = None
    notes: tuple[str, ...] = ()
    tokens: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def by_sentence(self) -> bool:
        """Whether the limits choose among sentences, not chunks."""
        return self.options.unit == "sentence"


def is_skipped(options: PruneOptions, tokens: int) -> bool:
    """Tell whether the options keep a context of so many tokens as it is, without reading it."""
    small = options.skip_below_tokens is not None and tokens <= options.skip_below_tokens
    return small and (options.max_tokens is None or tokens <= options.max_tokens)


def make_request(
    query: str,
    chunks: Iterable[ChunkLike],
    options: PruneOptions,
    weights: HeadWeights,
    context: ContextFormat,
    *,
    history: Iterable[Turn] = (),
    counts: bool = True,
) -> Request:
    """Check a question, its chunks and what the options, which have a limit, name in them.

    Raises:
        InputError: If the query is blank or not a string, a turn or a chunk isn't text, or a
            protected range isn't in its text.
        TokenCounterError: If the token counter fails.
    """
    watch = Stopwatch()
    objects, views = checked_chunks(query, chunks)
    read_query = asked_in(query, history)
    if options.unit == "sentence":
        units = unit_spans(views)
    else:
        units = [(index, 0, len(view.text)) for index, view in enumerate(views)]
    notes = [] if read_query == query else [_READ_NOTE.format(read_query)]
    if weights.score_scale == "additive" and options.top_p:
        notes.append(_TOP_P_NOTE)
    prior = None
    if options.prior is not None:
        terms = prior_terms(views, options.prior)
        if terms is not None:
            prior = weights.prior_weights[options.prior] * terms
        elif options.prior != "order":
            notes.append(_NO_PRIOR_NOTE.format(options.prior))
    tokens = 0
    if counts:
        with watch.stage("count"):
            tokens = context.tokens_of(view.rendered for view in views)
    read_chunks = views if is_skipped(options, tokens) else without_echoes(query, views)
    echoes = sum(read is not view for read, view in zip(read_chunks, views, strict=True))
    if echoes:
        notes.append(
            _ECHO_NOTE.format("1 chunk repeats" if echoes == 1 else f"{echoes} chunks repeat")
        )
    if len(_TURN.findall(query)) > 1:
        logger.warning(_TURNS_NOTE)
        notes.append(_TURNS_NOTE)
    spans = protected_spans(views, options.protect)
    return Request(
        query,
        read_query,
        objects,
        views,
        read_chunks,
        options,
        units,
        protected=spans,
        prior=prior,
        notes=tuple(notes),
        tokens=tokens,
        seconds=watch.seconds(),
    )
