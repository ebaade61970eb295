"""`AT2Pruner`: from a question and its chunks to the few relevant ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from at2_rag.errors import InputError, PrunerBusyError, ScoringError, brief
from at2_rag.model.fingerprint import states_scope
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel, checked_model, source_of
from at2_rag.model.pickling import reduced
from at2_rag.options import OnError, PruneOptions, PruneOverrides
from at2_rag.prompt.sentence_tokens import sentence_spans_of
from at2_rag.pruning.choice import after_failure, choose, without_scores
from at2_rag.pruning.history import Turn
from at2_rag.pruning.request import BatchRequest, ContextFormat, Request, make_request
from at2_rag.pruning.scorer import Failure, Scorer
from at2_rag.pruning.workers import Workers, most_readers
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.features import Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.scores import Scores
from at2_rag.readout.shipped import check_match, resolve_head_weights
from at2_rag.results import (
    PruneResult,
    ScoredChunk,
    ScoredSentence,
    scored_chunks,
    scored_sentences,
)
from at2_rag.states.store import ChunkCache
from at2_rag.text.chunks import (
    DEFAULT_ELLIPSIS,
    DEFAULT_SEPARATOR,
    ChunkLike,
    checked_chunks,
    chunk_batches,
)
from at2_rag.text.tokens import resolve_token_counter

logger = logging.getLogger(__name__)

_INDEX_BATCH = 64
"""Chunks that `index` reads at a time."""

DEFAULT_MAX_PENDING = 1024
"""Calls of `aprune` that wait or run at a time."""


class PrunerSettings(TypedDict, total=False):
    """The keyword arguments of `AT2Pruner`, for type checkers."""

    options: PruneOptions | None
    head_weights: HeadWeights | str | Path | None
    reading: Reading | None
    token_counter: Any
    separator: str
    ellipsis: str
    on_error: OnError
    chunk_cache: StateStore | str | os.PathLike[str] | None
    max_pending: int


class AT2Pruner:
    """Ranks chunks by the attention a small local model pays to them, and keeps the best.

    Thread-safe and immutable; a copy is the pruner itself. It is pickled by the name or folder of
    its model, which the process that unpickles it loads again, once; its cache as its folder, or
    empty. The caller's model, chunks and torch settings are never changed.

    Args:
        model: The scoring model.
        options: Defaults for each call; None for those of `PruneOptions`.
        head_weights: `HeadWeights`, the name of shipped weights, "uniform" (the plain mean over
            all heads), or a folder that `at2-rag train` wrote, as a `Path`. None for the shipped
            weights fitted on this very model, if there are any.
        reading: "independent" (each chunk is read alone; order can't change scores, any number of
            chunks) or "joint" (all in one prompt, within the model's window). None for what the
            head weights are for, "independent" where they don't say.
        token_counter: Counts tokens for `max_tokens` and the result: the name of an OpenAI model
            or tiktoken encoding, a Hugging Face tokenizer or a callable; None for the scoring
            model's tokenizer.
        separator: Text between two chunks in the generator's prompt; counted too.
        ellipsis: Text instead of the sentences that a chunk was trimmed of, with white space around
            it; "" for nothing but the white space.
        on_error: "raise", or "keep_all": if scoring fails, keep every chunk, log it, and say so
            in the result. Unusable arguments raise in either case.
        chunk_cache: Keeps what was read of chunks for later calls: a folder, a `ChunkCache` or any
            other mutable mapping; None for main memory, 512 MiB of it. Nothing is kept of chunks
            that are read jointly.
        max_pending: Most calls of `aprune` that wait or run at a time, at least 1; one more is
            refused, or treated as a failure if `on_error` is "keep_all".

    Raises:
        InputError: If an argument can't be used, or the head weights can't do what the options
            ask for.
        UnsupportedModelError: If the model can't be captured, or not read independently.
        HeadWeightsError: If there are no usable head weights for this model.
        TokenCounterError: If no counter can be made of `token_counter`.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        options: PruneOptions | None = None,
        head_weights: HeadWeights | str | Path | None = None,
        reading: Reading | None = None,
        token_counter: Any = None,
        separator: str = DEFAULT_SEPARATOR,
        ellipsis: str = DEFAULT_ELLIPSIS,
        on_error: OnError = "raise",
        chunk_cache: StateStore | str | os.PathLike[str] | None = None,
        max_pending: int = DEFAULT_MAX_PENDING,
    ) -> None:
        if reading not in (None, "independent", "joint"):
            raise InputError(f"reading is {brief(reading)}; pass 'independent' or 'joint'")
        if on_error not in ("raise", "keep_all"):
            raise InputError(f"on_error is {brief(on_error)}; pass 'raise' or 'keep_all'")
        if not isinstance(options, PruneOptions | None):
            raise InputError(f"options is a {type(options).__name__}; pass PruneOptions(...)")
        if isinstance(max_pending, bool) or not isinstance(max_pending, int) or max_pending < 1:
            raise InputError(f"max_pending is {max_pending!r}; pass a whole number from 1")
        base = checked_model(model).model.base_model
        self.head_weights = resolve_head_weights(head_weights, model, reading=reading)
        self.options = options or PruneOptions()
        self.head_weights.check_options(self.options)
        self.reading: Reading = self.head_weights.reading
        self.scoring_model = ScoringModel(
            model.model, model.tokenizer, depth=self.head_weights.layers
        )
        if self.reading == "independent":
            self.scoring_model.check_independent()
        template_hash = self.scoring_model.prompts.template_hash(self.reading)
        check_match(self.head_weights, model, template_hash=template_hash)
        self.model_name = str(
            self.head_weights.provenance.get("model") or base.config.name_or_path or "model"
        )
        self.on_error = on_error
        self._context = ContextFormat(
            resolve_token_counter(model.tokenizer if token_counter is None else token_counter),
            separator,
            ellipsis,
        )
        if chunk_cache is None:
            self.chunk_cache: StateStore = ChunkCache()
        elif isinstance(chunk_cache, str | os.PathLike):
            self.chunk_cache = ChunkCache(chunk_cache)
        else:
            self.chunk_cache = chunk_cache
        scope = ""
        if self.reading == "independent":
            scope = states_scope(
                base,
                fingerprint=model.fingerprint,
                template_hash=template_hash,
                depth=self.scoring_model.depth,
            )
        self._scorer = Scorer(
            self.scoring_model, self.head_weights, cache=self.chunk_cache, scope=scope
        )
        self._workers = Workers(most_readers, max_pending=max_pending)
        self._refusals = Workers(lambda: 1)
        self._source = source_of(model)
        self._arguments: PrunerSettings = {
            "options": self.options,
            "head_weights": self.head_weights,
            "reading": self.reading,
            "token_counter": token_counter,
            "separator": separator,
            "ellipsis": ellipsis,
            "on_error": on_error,
            "chunk_cache": chunk_cache,
            "max_pending": max_pending,
        }

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **settings: Unpack[PrunerSettings],
    ) -> AT2Pruner:
        """Load a scoring model and its head weights.

        Args:
            name_or_folder: As in `LoadedModel.from_pretrained`.
            revision: As in `LoadedModel.from_pretrained`.
            device: As in `LoadedModel.from_pretrained`.
            dtype: As in `LoadedModel.from_pretrained`.
            **settings: The constructor's keyword arguments.

        Raises:
            ModelNotFoundError: If the model can't be found, fetched or read.
            InputError: If an argument can't be used.
            UnsupportedModelError: As in the constructor, like `HeadWeightsError` and
                `TokenCounterError`.
        """
        model = LoadedModel.from_pretrained(
            name_or_folder, revision=revision, device=device, dtype=dtype
        )
        return cls(model, **settings)

    @property
    def calibrated(self) -> bool:
        """Whether scores become probabilities, so that `prune` needs no limit."""
        return self.head_weights.calibration is not None

    @property
    def separator(self) -> str:
        """Text between two chunks of the context."""
        return self._context.separator

    @property
    def ellipsis(self) -> str:
        """Text instead of what a chunk was trimmed of."""
        return self._context.ellipsis

    def __repr__(self) -> str:
        layers = f"{self.scoring_model.depth} of {self.scoring_model.layers} layers"
        return f"<AT2Pruner: {self.model_name}, {layers}, {self.reading} reading>"

    def __copy__(self) -> AT2Pruner:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> AT2Pruner:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what loads the pruner again.

        Raises:
            InputError: If the model was passed as an object, or the token counter or the cache
                can't be pickled.
        """
        arguments = self._arguments.copy()
        if type(arguments["chunk_cache"]) is dict:
            arguments["chunk_cache"] = {}  # like a ChunkCache in memory
        return reduced(type(self), self._source, arguments)

    def score(self, query: str, chunks: Iterable[ChunkLike]) -> tuple[ScoredChunk, ...]:
        """Score every chunk, by one reading and without a prior.

        Returns:
            One `ScoredChunk` a chunk, in input order; empty for no chunks.

        Raises:
            InputError: If the query is blank or not a string, or a chunk isn't text.
            PromptTooLongError: If the question (in joint reading: the prompt) exceeds the model's
                window.
            ScoringError: If the model's numbers overflowed.
        """
        options = PruneOptions(multi_hop=False)
        request = make_request(
            query, chunks, options, self.head_weights, self._context, counts=False
        )
        if not request.chunks:
            return ()
        scores = self._scorer.score([request])[0].chunks
        return scored_chunks(request.objects, request.chunks, scores.scores, scores.probabilities)

    def score_sentences(
        self, query: str, chunks: Iterable[ChunkLike]
    ) -> tuple[ScoredSentence, ...]:
        """Score every sentence of every chunk, by the head weights of the chunks.

        A sentence is read within its chunk. Read independently, the chunk's state is cut: the
        masses of its sentences, title and white space *together* add up to the chunk's, and
        *apart* the question sees one sentence's tokens after the prefix. Read jointly, the
        sentence's tokens in the prompt count. `at2-rag eval fidelity --unit sentence` measures how
        well weights that were fitted on chunks serve sentences.

        Args:
            query: The question.
            chunks: As in `prune`.

        Returns:
            The sentences in the order of the chunks; a blank chunk has none.

        Raises:
            InputError: As in `score`, like `PromptTooLongError` and `ScoringError`.
        """
        _, views = checked_chunks(query, chunks)
        spans = sentence_spans_of(views)
        if not spans:
            return ()
        return scored_sentences(views, spans, self._scorer.unit_scores(query, views, spans))

    def index(
        self,
        chunks: Iterable[ChunkLike],
        *,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Read chunks ahead of any question and keep what a question needs of them in the cache.

        Chunks that are in the cache are not read again, so an interrupted run can be resumed.

        Args:
            chunks: As in `prune`; consumed a few at a time.
            progress: Called with the number of chunks done so far.

        Raises:
            InputError: If the pruner reads chunks jointly, or a chunk isn't text.
        """
        done = 0
        for batch in chunk_batches(chunks, _INDEX_BATCH):
            self._scorer.keep(batch)
            done += len(batch)
            progress(done)

    def warm_up(self) -> None:
        """Read the prompt's beginning and a short question, so that the first call is like others.

        Nothing of it is left in the cache.
        """
        self._scorer.warm_up()

    def prune(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        *,
        history: Iterable[Turn] = (),
        **overrides: Unpack[PruneOverrides],
    ) -> PruneResult:
        """Keep the chunks that are relevant to the query.

        Args:
            query: The question.
            chunks: Strings, mappings (`text`, optional `title`, `id`, `metadata`) or `Chunk`s.
            history: The user's earlier questions, the last one at the end, or messages (mappings
                with `role` and `content`), of which the user's count. A question that refers to the
                one before it ("who wrote it?") is read after that; any other is read alone.
            **overrides: Options that override the pruner's for this call; see `PruneOptions`.

        Raises:
            InputError: If there is no limit, an argument can't be used, or the head weights can't
                do what the options ask for; as in `score`.
            ScoringError: As in `score`, unless `on_error="keep_all"`.
        """
        request = self._request(query, chunks, self._options(overrides), history)
        return self._results([request])[0]

    async def aprune(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        *,
        history: Iterable[Turn] = (),
        **overrides: Unpack[PruneOverrides],
    ) -> PruneResult:
        """Prune in a thread of the pruner's, so that neither loop nor its executor is blocked.

        A call that is cancelled stops reading within a layer of the model. One that is refused, but
        must not fail, waits for none that reads: a thread beside theirs checks its arguments and
        counts its tokens.

        Raises:
            PrunerBusyError: If `max_pending` calls wait or run already, unless
                `on_error="keep_all"`; else as `prune`.
        """
        try:
            prune = partial(self.prune, query, chunks, history=history, **overrides)
            return await self._workers.run(prune)
        except PrunerBusyError as error:
            if self.on_error == "raise":
                raise
            refuse = partial(self._refused, error, query, chunks, self._options(overrides))
            return await self._refusals.run(refuse)

    def prune_batch(
        self, requests: Iterable[BatchRequest], **overrides: Unpack[PruneOverrides]
    ) -> list[PruneResult]:
        """Prune for many pairs of query and chunks, or triples with a history, with equal options.

        Several are read in the same passes of the model, and chunks that they share once, which
        changes scores by rounding alone. The time of a pass is divided evenly among its results.

        Raises:
            InputError: As in `prune`; and if `protect` names ranges, which are of one request's
                chunks.
        """
        options = self._options(overrides)
        if isinstance(options.protect, Mapping):
            raise InputError(
                "protect names ranges of characters, which belong to one request's chunks; pass a "
                "regular expression, or prune one by one"
            )
        return self._results(
            [self._request(query, chunks, options, *rest) for query, chunks, *rest in requests]
        )

    async def aprune_batch(
        self, requests: Iterable[BatchRequest], **overrides: Unpack[PruneOverrides]
    ) -> list[PruneResult]:
        """Do as `prune_batch` in a thread of the pruner's, as `aprune` does.

        Raises:
            PrunerBusyError: As in `aprune`; else as `prune_batch`.
        """
        requests = list(requests)
        try:
            return await self._workers.run(partial(self.prune_batch, requests, **overrides))
        except PrunerBusyError as error:
            if self.on_error == "raise":
                raise
            options = self._options(overrides)
            refused = [partial(self._refused, error, *one[:2], options) for one in requests]
            return [await self._refusals.run(refuse) for refuse in refused]

    def _options(self, overrides: PruneOverrides) -> PruneOptions:
        return self.head_weights.with_limit(self.options.override(**overrides))

    def _request(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        options: PruneOptions,
        history: Iterable[Turn] = (),
    ) -> Request:
        weights, context = self.head_weights, self._context
        return make_request(query, chunks, options, weights, context, history=history)

    def _refused(
        self,
        error: PrunerBusyError,
        query: str,
        chunks: Iterable[ChunkLike],
        options: PruneOptions,
    ) -> PruneResult:
        return self._result(self._request(query, chunks, options), Failure(error, {}))

    def _results(self, requests: Sequence[Request]) -> list[PruneResult]:
        """Score the requests that need it, and choose what is kept of each."""
        results = [without_scores(request, self._context) for request in requests]
        waiting = [index for index, result in enumerate(results) if result is None]
        scores = self._scorer.score(
            [requests[index] for index in waiting], tolerant=self.on_error == "keep_all"
        )
        for index, outcome in zip(waiting, scores, strict=True):
            results[index] = self._result(requests[index], outcome)
        return [result for result in results if result is not None]

    def _result(self, request: Request, outcome: Scores | Failure) -> PruneResult:
        if isinstance(outcome, Scores):
            try:
                return choose(request, outcome, self._context, self._scorer.unit_scores)
            except (ScoringError, RuntimeError) as error:  # of reading parts of a chunk
                if self.on_error == "raise":
                    raise
                outcome = Failure(error, outcome.seconds)
        logger.error(
            "scoring failed, all %d chunks are kept", len(request.chunks), exc_info=outcome.error
        )
        return after_failure(request, self._context, outcome.error, outcome.seconds)
