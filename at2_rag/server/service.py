"""`Service`: a pruner with its queue, limits and metrics, as the routes use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar, Unpack, cast

from at2_rag import __version__
from at2_rag.attribution import AT2Attributor
from at2_rag.errors import HeadWeightsNotFoundError, InputError, brief
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.options import PruneOptions, PruneOverrides
from at2_rag.pruner import AT2Pruner, PrunerSettings
from at2_rag.pruning.history import Turn
from at2_rag.pruning.workers import Workers, most_readers
from at2_rag.results import PruneResult
from at2_rag.server.batching import Batcher, Job, Waiting
from at2_rag.server.errors import ErrorKind, RequestError
from at2_rag.server.settings import ServerSettings
from at2_rag.server.telemetry.metrics import Metrics
from at2_rag.states.store import ChunkCache
from at2_rag.text.chunks import Chunk, ChunkLike, checked_chunks

T = TypeVar("T")

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

    async def beside(self, function: Callable[[], T]) -> T:
        """Return what a long function returns, run beside the batches; cancelled, it stops."""
        return await self._side_work.run(function)

    async def cut(self, texts: Sequence[str], tokens: int) -> tuple[list[str], list[int]]:
        """Return texts cut to so many tokens, and the indexes of those that were longer."""
        spans = self.pruner.scoring_model.prompts.text_spans

        def shorten() -> tuple[list[str], list[int]]:
            kept, cut = list(texts), []
            for index, text in enumerate(texts):
                within = spans(text)
                if len(within) > tokens:
                    kept[index] = text[: within[tokens - 1][1]]
                    cut.append(index)
            return kept, cut

        return await self._checks.run(shorten)

    async def job(
        self,
        query: str,
        chunks: Sequence[ChunkLike],
        options: PruneOptions,
        *,
        history: Sequence[Turn] = (),
        priority: int = 0,
    ) -> Job:
        """Check a question and its chunks, and count the tokens that the scoring model reads."""
        check = partial(self._job, query, chunks, options, history, priority)
        return await self._checks.run(check)

    def _job(
        self,
        query: str,
        chunks: Sequence[ChunkLike],
        options: PruneOptions,
        history: Sequence[Turn],
        priority: int,
    ) -> Job:
        _, views = checked_chunks(query, chunks)
        options = self.pruner.head_weights.with_limit(options)
        return Job(query, chunks, options, self._tokens(query, views), history, priority)

    def _tokens(self, query: str, views: Sequence[Chunk]) -> int:
        prompts = self.pruner.scoring_model.prompts
        layout = (prompts.joint if self.pruner.reading == "joint" else prompts.independent)(
            query, views
        )
        tokens = len(layout.question_ids) + sum(map(len, layout.source_ids))
        most = self.settings.max_request_tokens
        if tokens > most:
            raise RequestError(
                ErrorKind.INVALID_INPUT,
                f"the request has {tokens:,} tokens, at most {most:,} are taken; send fewer or "
                "shorter documents",
            )
        return tokens

    def submit(self, jobs: Sequence[Job]) -> list[asyncio.Future[PruneResult]]:
        """Queue the jobs of one request.

        Raises:
            RequestError: If all of them together have too many tokens, or don't fit into the queue.
        """
        tokens, most = sum(job.tokens for job in jobs), self.settings.max_request_tokens
        if tokens > most:
            raise RequestError(
                ErrorKind.INVALID_INPUT,
                f"the questions together have {tokens:,} tokens, at most {most:,} are taken; send "
                "them in several requests",
            )
        return self._batcher.submit(jobs)

    async def result(self, job: Job) -> PruneResult:
        """Return the result of a job; cancelled, it is withdrawn."""
        [future] = self.submit([job])
        return await future

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
