"""The server's app on Ray Serve: replicas, each with a scorer and a queue of its own.

A replica is what `at2-rag serve` runs: the same app over the same service, with batches bounded in
tokens. Ray Serve takes HTTP on each node, chooses a replica, and starts and ends replicas. Requests
with the same `X-Session-Id` go to the same replica by consistent hashing, so that what it keeps of
their chunks serves the next; if it is full they go to the next two on the ring.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig
from ray.serve.schema import ApplicationStatus
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from at2_rag.errors import InputError, ScoringError
from at2_rag.ray.cluster import Worker, connect, workers_that_fit
from at2_rag.server.keys import warn_if_open
from at2_rag.server.settings import ServerSettings
from at2_rag.server.telemetry.logs import log_as_json

if TYPE_CHECKING:  # so that the command, which only starts replicas, doesn't load torch
    from at2_rag.server.service import Service

APPLICATION = "at2-rag"
"""The name of the application, and of its deployment."""

_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_RETRY_SECONDS = 1  # of a 429 by Ray itself, which knows no rate; one by a replica says it better
_POLL_SECONDS = 0.2  # between two looks at whether replicas run
_MOST_STARTS = 3  # of replicas that fail to start, before the deployment is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many replicas there are, and what each takes.

    Attributes:
        least: Replicas at least.
        most: Replicas at most.
        target_requests: Requests in flight a replica, on average, that Ray aims at between the two.
        worker: What each takes.

    Raises:
        InputError: If `most` is below `least`.
    """

    least: int = 1
    most: int = 1
    target_requests: float = 8.0
    worker: Worker = field(default_factory=Worker)

    def __post_init__(self) -> None:
        if self.most < self.least:
            raise InputError(
                f"at least {self.least} replicas are wanted and at most {self.most}; pass a larger "
                "--max-replicas, or leave it out"
            )


class Replica:
    """One process of the deployment.

    Args:
        settings: Limits and times of this replica.
        worker: What it takes.
        loading: Keyword arguments of `load_service`, but `head_weights` as on a command line.
    """

    def __init__(
        self, settings: ServerSettings, worker: Worker, loading: Mapping[str, Any]
    ) -> None:
        from at2_rag.readout.shipped import named_or_folder
        from at2_rag.server.service import load_service

        log_as_json()
        worker.settle()
        weights = named_or_folder(loading["head_weights"])
        self._service = load_service(settings, **{**loading, "head_weights": weights})

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the app; Ray Serve calls this once the replica is made."""
        from at2_rag.server.app import make_app

        return _InReplica(make_app(self._service), self._service)


class _InReplica:
    """Gives requests the service, as uvicorn would, and leaves their ids to Ray's proxy.

    The proxy gives each request the header X-Request-Id, which the app's logs take over, and each
    response too.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await self._app({**scope, "state": {"service": self._service}}, receive, send_without_id)


def application(settings: ServerSettings, replicas: Replicas, loading: Mapping[str, Any]) -> Any:
    """Return the application, for `ray.serve.run`.

    Args:
        settings: Limits and times of each replica.
        replicas: How many there are.
        loading: Keyword arguments of `load_service`, but `head_weights` as on a command line. They
            have to be picklable, and every node has to find the folders that they name.
    """
    if replicas.least == replicas.most:
        number: dict[str, Any] = {"num_replicas": replicas.least}
    else:
        scaling = AutoscalingConfig(
            min_replicas=replicas.least,
            max_replicas=replicas.most,
            target_ongoing_requests=replicas.target_requests,
        )
        number = {"autoscaling_config": scaling}
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=APPLICATION,
        ray_actor_options=replicas.worker.resources,
        max_ongoing_requests=settings.max_requests,
        max_queued_requests=settings.max_requests,  # of each proxy, while all replicas are full
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=_RETRY_SECONDS),
        request_router_config=RequestRouterConfig(request_router_class=_ROUTER),
        graceful_shutdown_timeout_s=settings.drain_seconds,
        max_constructor_retry_count=_MOST_STARTS,
        logging_config={"enable_access_log": False},  # the app has one, with ids and figures
        **number,
    )
    return deployment.bind(settings, replicas.worker, dict(loading))


def serve_until_signal(
    settings: ServerSettings,
    replicas: Replicas,
    loading: Mapping[str, Any],
    *,
    host: str,
    port: int,
) -> None:
    """Serve until SIGTERM or SIGINT, then until what was accepted is answered, or time is up.

    `host` and `port` count unless Ray Serve runs on the cluster already.

    Raises:
        InputError: If the cluster has too few CPUs for as many replicas as there are at least.
        ScoringError: If they fail to start.
    """
    stopping = threading.Event()
    connect()
    if (room := workers_that_fit(replicas.worker)) < replicas.least:
        raise InputError(
            f"{replicas.least} replicas of {replicas.worker.cpus} CPUs are wanted, and the cluster "
            f"has CPUs for {room}; pass smaller --replicas or --cpus"
        )
    _set_on_signal(stopping)
    warn_if_open(settings.api_keys, host)
    serve.start(http_options={"host": host, "port": port})
    target = serve.RunTarget(application(settings, replicas, loading), name=APPLICATION)
    serve.run_many([target], wait_for_applications_running=False)
    _set_on_signal(stopping)  # again, since Ray sets handlers of its own
    try:
        if _is_running(stopping):
            stopping.wait()
    finally:
        serve.delete(APPLICATION)


def _is_running(stopping: threading.Event) -> bool:
    """Wait until all replicas run; return False if it is time to stop before."""
    while not stopping.wait(_POLL_SECONDS):
        state = serve.status().applications[APPLICATION]
        if state.status == ApplicationStatus.RUNNING:
            return True
        if state.status == ApplicationStatus.DEPLOY_FAILED:
            raise ScoringError(f"the replicas can't be started: {state.message}")
    return False


def _set_on_signal(stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
