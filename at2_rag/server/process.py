"""The process: uvicorn with an end that loses no accepted request, and without slow clients."""

from __future__ import annotations

import asyncio
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from at2_rag.server.app import make_app
from at2_rag.server.service import Service
from at2_rag.server.telemetry.logs import access_log, log_as_json

_MOST_HEADER_BYTES = 65_536
_LOOK_SECONDS = 0.05
_KEEP_ALIVE_SECONDS = 75  # longer than clients and proxies do, so that they close, not we


def serve(service: Service, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then until what was accepted is answered, or time is up."""
    log_as_json()
    if not service.settings.api_keys and host not in ("127.0.0.1", "::1", "localhost"):
        access_log.warning(
            "whoever reaches %s may use this server; set keys with --api-key-file", host
        )
    config = uvicorn.Config(
        make_app(service),
        host=host,
        port=port,
        http=_protocol(service.settings.body_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,  # requests were waited for before
    )
    DrainingServer(config, service).run()


class DrainingServer(uvicorn.Server):
    """On the first signal takes no more work, and stops once what is in flight is done.

    Meanwhile it answers: /ready and new work with 503, so that clients go elsewhere. A second
    signal, or the deadline, stops it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or stop."""
        if self._service.draining or not self.started:
            super().handle_exit(sig, frame)
            return
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Look whether it is time to stop; uvicorn calls this ten times a second."""
        if self._service.draining and self._drain is None:
            self._drain = asyncio.create_task(self._drained())
        return await super().on_tick(counter)

    async def _drained(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._service.settings.drain_seconds
        access_log.info("draining")
        while self._service.in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        if self._service.in_flight:
            access_log.warning("%d requests are given up", self._service.in_flight)
        self.should_exit = True


def _protocol(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol, with a bound on the time of a request's headers.

    The same holds for what is left of a body after its answer. Without it a client that sends a
    byte now and then would keep its connection for ever.
    """

    class PatientProtocol(H11Protocol):
        _slow: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            answered = self.cycle is None or self.cycle.response_complete
            if answered and self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
                self._watch()
            else:
                self._unwatch()

        def _watch(self) -> None:
            if self._slow is None:
                self._slow = self.loop.call_later(seconds, self._end)

        def _unwatch(self) -> None:
            if self._slow is not None:
                self._slow.cancel()
                self._slow = None

        def _end(self) -> None:
            self._slow = None
            self.transport.close()

    return PatientProtocol
