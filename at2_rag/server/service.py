"""`Service`: a pruner with its queue, limits and metrics, as the routes use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import partial
from typing import Any, TypeAlias, TypeVar, Unpack, cast

from at2_rag import __version__
from at2_rag.attribution import AT2Attributor, Unit
from at2_rag.errors import HeadWeightsNotFoundError, InputError, brief
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.options import PruneOptions, PruneOverrides
from at2_rag.pruner import AT2Pruner, PrunerSettings
from at2_rag.pruning.history import Turn, asked_in
from at2_rag.pruning.scorer import tokens_read
from at2_rag.pruning.workers import Workers, most_readers
from at2_rag.readout.prior import prior_terms
from at2_rag.results import Attribution, CitedAnswer, PruneResult
from at2_rag.server.batching import Batcher, Job, Waiting
from at2_rag.server.errors import ErrorKind, RequestError
from at2_rag.server.settings import ServerSettings
from at2_rag.server.telemetry.metrics import Metrics
from at2_rag.states.store import ChunkCache
from at2_rag.text.chunks import Chunk, ChunkLike, as_chunk, checked_chunks
from at2_rag.text.units import unit_spans
from at2_rag.wanted import check_wanted

T = TypeVar("T")

Question: TypeAlias = tuple[str, Sequence[ChunkLike], Sequence[Turn]]
"""A question, its chunks, and the turns before it."""

MODEL_ALIAS = "at2-rag"
"""A name that requests may always give to the model."""


class Service:
    """Scores, prunes and attributes for the routes.

    Args:
        pruner: Its head weights have to be calibrated.
        attributor: None where there are no head weights for answers.
        settings: Limits and times.

    Raises:
        InputError: If the head weights aren't calibrated.
    """

    def __init__(
        self, pruner: AT2Pruner, attributor: AT2Attributor | None, settings: ServerSettings
    ) -> None:
        if not pruner.calibrated:
            raise InputError(
                "the head weights aren't calibrated, so that there is no probability to serve; "
                "pass calibrated --head-weights (at2-rag calibrate makes them), or leave them out"
            )
        self.pruner, self.settings = pruner, settings
        self.metrics = Metrics()
        self.draining = False
        self.in_flight = 0
        self.body_bytes = 0  # of the requests in flight
        self._attributor = attributor
        self._checks = Workers(most_readers, max_pending=settings.max_requests)
        self._side_work = Workers(lambda: 1, max_pending=settings.max_requests)
        self._batcher = Batcher(
            self._read,
            max_batch_tokens=settings.max_batch_tokens,
            max_queue_tokens=settings.max_queue_tokens,
            delay=settings.batch_delay,
            readers=most_readers(),
            on_batch=self._observe_batch,
        )
        cache = pruner.chunk_cache
        self.metrics.watch(
            in_flight=lambda: self.in_flight,
            body_bytes=lambda: self.body_bytes,
            queued=lambda: self._batcher.waiting,
            queued_tokens=lambda: self._batcher.tokens,
            cache=(lambda: cache.counts) if isinstance(cache, ChunkCache) else None,
        )

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names that requests may give to the model, its own first."""
        names = (self.pruner.model_name, MODEL_ALIAS, *self.settings.model_names)
        return tuple(dict.fromkeys(names))

    @property
    def retry_after(self) -> int:
        """Seconds after which a refused request may be tried again."""
        return self._batcher.retry_after

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read what is queued while the block runs."""
        task = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            task.cancel()

    def check_model(self, name: str | None) -> None:
        """Raise `RequestError` for a model that isn't served; None is any."""
        if name is not None and name not in self.model_names:
            served = ", ".join(map(repr, self.model_names))
            raise RequestError(
                ErrorKind.UNKNOWN_MODEL,
                f"model is {brief(name)}, served are {served}; name one of them, or start the "
                "server with --model-name for yours",
            )

    def check_count(self, documents: int) -> None:
        """Raise `RequestError` for more documents than a request may have."""
        most = self.settings.max_documents
        if documents > most:
            raise RequestError(
                ErrorKind.TOO_LARGE,
                f"the request has {documents:,} documents, at most {most:,} are taken; send them "
                "in several requests",
            )

    def take_body(self, size: int) -> None:
        """Count so many bytes more of a body; raise `RequestError` where they are too many."""
        most = self.settings.max_bytes_in_flight
        if self.body_bytes + size > most:
            raise RequestError(
                ErrorKind.BUSY,
                f"the bodies in flight have {self.body_bytes:,} bytes, and at most {most:,} may "
                f"be; try again in {self.retry_after} s",
                retry_after=self.retry_after,
            )
        self.body_bytes += size

    async def cut(self, texts: Sequence[str], tokens: int) -> tuple[list[str], list[int]]:
        """Return texts cut to so many tokens, and the indexes of those that were longer."""
        spans = self.pruner.scoring_model.prompts.text_spans

        def shorten() -> tuple[list[str], list[int]]:
            kept, cut = list(texts), []
            for index, text in enumerate(texts):
                check_wanted()
                within = spans(text)
                if len(within) > tokens:
                    kept[index] = text[: within[tokens - 1][1]]
                    cut.append(index)
            return kept, cut

        return await self._checks.run(shorten)

    async def jobs(
        self, questions: Sequence[Question], options: PruneOptions, *, priority: int = 0
    ) -> list[Job]:
        """Check the questions of a request, and count the tokens that the scoring model reads.

        What one of them can't be read for is found here, before it is in a batch with others.

        Raises:
            InputError: If a question, its history or a chunk can't be used.
            RequestError: If all of them together have too many tokens.
        """
        return await self._checks.run(partial(self._jobs, questions, options, priority))

    def _jobs(
        self, questions: Sequence[Question], options: PruneOptions, priority: int
    ) -> list[Job]:
        options = self.pruner.head_weights.with_limit(options)
        jobs, sum_of_tokens = [], 0
        for query, chunks, history in questions:
            check_wanted()
            _, views = checked_chunks(query, chunks)
            if options.prior is not None:
                prior_terms(views, options.prior)
            tokens = self._tokens(asked_in(query, history), views, options)
            sum_of_tokens += tokens
            self._check_tokens(sum_of_tokens)
            jobs.append(Job(query, chunks, options, tokens, history, priority))
        return jobs

    def _tokens(self, query: str, views: Sequence[Chunk], options: PruneOptions) -> int:
        prompts = self.pruner.scoring_model.prompts
        lay_out = prompts.joint if self.pruner.reading == "joint" else prompts.independent
        units = unit_spans(views) if options.unit == "sentence" else ()
        return tokens_read(self.pruner.head_weights, lay_out(query, views), units)

    def _check_tokens(self, tokens: int) -> None:
        most = self.settings.max_request_tokens
        if tokens > most:
            raise RequestError(
                ErrorKind.INVALID_INPUT,
                f"the request has {tokens:,} tokens or more, at most {most:,} are taken; send "
                "fewer or shorter documents, or several requests",
            )

    def submit(self, jobs: Sequence[Job]) -> list[asyncio.Future[PruneResult]]:
        """Queue the jobs of one request; one is withdrawn by cancelling its future.

        Raises:
            RequestError: If they don't fit into the queue.
        """
        return self._batcher.submit(jobs)

    async def index(self, chunks: Sequence[ChunkLike]) -> None:
        """Read chunks ahead of any question; cancelled, it stops."""

        def count() -> int:
            views = [as_chunk(chunk, index) for index, chunk in enumerate(chunks)]
            return sum(map(len, self.pruner.scoring_model.prompts.windows(views)[0]))

        await self._beside(count, lambda: self.pruner.index(chunks))

    async def attribute(
        self,
        query: str,
        chunks: Sequence[ChunkLike],
        answer: str,
        *,
        span: tuple[int, int] | None,
        unit: Unit,
        max_sources: int,
        min_share: float,
    ) -> tuple[Attribution, CitedAnswer]:
        """Say what an answer rests on, as `AT2Attributor` does; cancelled, it stops."""
        attributor = self.attributor

        def count() -> int:
            _, views = checked_chunks(query, chunks)
            layout = attributor.scoring_model.prompts.conversation(query, views, answer)
            return 2 * len(layout.input_ids)  # once to attribute, once to cite

        def work() -> tuple[Attribution, CitedAnswer]:
            return (
                attributor.attribute(query, chunks, answer, span=span, unit=unit),
                attributor.cite(
                    query, chunks, answer, max_sources=max_sources, min_share=min_share
                ),
            )

        return await self._beside(count, work)

    async def _beside(self, count: Callable[[], int], function: Callable[[], T]) -> T:
        """Return what a function returns that reads as many tokens, run beside the batches.

        Raises:
            RequestError: If they are more than a request may have, or don't fit into the queue.
        """
        tokens = await self._checks.run(count)
        self._check_tokens(tokens)
        with self._batcher.beside(tokens):
            return await self._side_work.run(function)

    async def _read(self, jobs: Sequence[Job]) -> list[PruneResult]:
        options = jobs[0].options
        every = {option.name: getattr(options, option.name) for option in fields(options)}
        return await self.pruner.aprune_batch(
            [(job.query, job.chunks, job.history) for job in jobs], **cast(PruneOverrides, every)
        )

    def _observe_batch(self, batch: Sequence[Waiting]) -> None:
        self.metrics.observe_batch([entry.job.tokens for entry in batch])
        now = time.monotonic()
        for entry in batch:
            entry.result.add_done_callback(partial(self._observe_result, now - entry.arrived))

    def _observe_result(self, queue_seconds: float, future: asyncio.Future[PruneResult]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.metrics.observe_result(future.result(), queue_seconds=queue_seconds)

    @property
    def attributor(self) -> AT2Attributor:
        """The attributor; raises `RequestError` where there is none."""
        if self._attributor is None:
            raise RequestError(
                ErrorKind.NOT_SUPPORTED,
                f"there are no head weights for answers of {self.pruner.model_name}; serve the "
                "default model to attribute",
            )
        return self._attributor

    def info(self) -> dict[str, Any]:
        """Return what /info answers; the first five keys are those of TEI."""
        settings, weights = self.settings, self.pruner.head_weights
        return {
            "model_id": self.pruner.model_name,
            "model_type": {
                "reranker": {"id2label": {"0": "relevant"}, "label2id": {"relevant": 0}}
            },
            "max_concurrent_requests": settings.max_requests,
            "max_client_batch_size": settings.max_documents,
            "max_batch_tokens": settings.max_batch_tokens,
            "version": __version__,
            "model_names": list(self.model_names),
            "reading": self.pruner.reading,
            "layers": self.pruner.scoring_model.depth,
            "fingerprint": weights.fingerprint,
            "attributes_answers": self._attributor is not None,
            "max_body_bytes": settings.max_body_bytes,
            "max_bytes_in_flight": settings.max_bytes_in_flight,
            "max_request_tokens": settings.max_request_tokens,
            "max_queue_tokens": settings.max_queue_tokens,
            "batch_delay": settings.batch_delay,
            "timeout": settings.timeout,
        }


def load_service(
    settings: ServerSettings,
    *,
    model: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **pruner: Unpack[PrunerSettings],
) -> Service:
    """Load a model, and return a service over it that is warm.

    Args:
        settings: Limits and times.
        model: As in `LoadedModel.from_pretrained`, like `revision`, `device` and `dtype`; None for
            the default model.
        revision: See `model`.
        device: See `model`.
        dtype: See `model`.
        **pruner: Keyword arguments of `AT2Pruner`.

    Raises:
        AT2Error: As `AT2Pruner.from_pretrained`, or if the head weights aren't calibrated.
    """
    loaded = LoadedModel.from_pretrained(
        model or DEFAULT_MODEL, revision=revision, device=device, dtype=dtype
    )
    try:
        attributor = AT2Attributor(loaded)
    except HeadWeightsNotFoundError:
        attributor = None
    service = Service(AT2Pruner(loaded, **pruner), attributor, settings)
    service.pruner.warm_up()
    return service
