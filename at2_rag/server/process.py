"""The process: uvicorn with an end that loses no accepted request, and without slow clients."""

from __future__ import annotations

import asyncio
from socket import socket
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from at2_rag.server.app import make_app
from at2_rag.server.keys import warn_if_open
from at2_rag.server.service import Service
from at2_rag.server.settings import ServerSettings
from at2_rag.server.telemetry.logs import access_log, log_as_json

_MOST_HEADER_BYTES = 65_536
_LOOK_SECONDS = 0.05
_KEEP_ALIVE_SECONDS = 75  # longer than clients and proxies do, so that they close, not we


def serve(service: Service, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then until what was accepted is answered, or time is up."""
    log_as_json()
    warn_if_open(service.settings.api_keys, host)
    config = uvicorn.Config(
        make_app(service),
        host=host,
        port=port,
        http=type("Protocol", (PatientProtocol,), {"settings": service.settings}),
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
    """On the first signal takes no more work, and stops once what is in flight was answered.

    Meanwhile it answers: /ready and new work with 503, so that clients go elsewhere. A second
    signal, or the deadline, stops it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Serve until told to stop."""
        asyncio.get_running_loop().set_exception_handler(_log_error)
        await super().serve(sockets)

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
        while self._busy() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        if self._service.in_flight:
            access_log.warning("%d requests are abandoned", self._service.in_flight)
        self.should_exit = True

    def _busy(self) -> bool:
        """Tell whether a request is in flight, or an answer that its client hasn't taken yet."""
        transports = [connection.transport for connection in self.server_state.connections]
        unread = sum(transport.get_write_buffer_size() for transport in transports)
        return bool(self._service.in_flight or unread)


def _log_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody handled; asyncio's own line would quote it, texts and all."""
    access_log.error("an error outside of any request", exc_info=context.get("exception"))


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, with bounds on the time that headers take, and the reading of an answer.

    The same holds for what is left of a body after its answer. Without it a client that sends a
    byte now and then, or reads nothing, would keep its connection for ever.
    """

    settings: ServerSettings
    _slow: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for headers."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `send` waits until all before was taken
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._unwatch()
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data, and wait for more if more has to come."""
        before = self.conn.their_state
        super().data_received(data)
        now = self.conn.their_state
        answered = self.cycle is None or self.cycle.response_complete
        if answered and (before, now) == (h11.SEND_BODY, h11.IDLE) and not self._has_more:
            self._unwatch()
            self._keep_alive()
        elif answered and now in (h11.IDLE, h11.SEND_BODY):
            self._watch()
        else:
            self._unwatch()

    @property
    def _has_more(self) -> bool:
        """Whether the beginning of another request has come."""
        return bool(self.conn.trailing_data[0])

    def _keep_alive(self) -> None:
        """Wait for another request as long as after an answer to a whole one."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def pause_writing(self) -> None:
        """Wait until the client takes what was written."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.settings.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Write on."""
        self._stop_waiting()
        super().resume_writing()

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch(self) -> None:
        if self._slow is None:
            self._slow = self.loop.call_later(self.settings.body_timeout, self._end)

    def _unwatch(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _end(self) -> None:
        self._slow = None
        self.transport.close()
