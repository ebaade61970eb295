"""What can go wrong with a request: one kind of error for each status code."""

from __future__ import annotations

from enum import Enum

from at2_rag.errors import AT2Error, InputError, PrunerBusyError


class ErrorKind(Enum):
    """A kind of error: its status code, and its name in our own error form."""

    INVALID_BODY = (400, "invalid_body")
    NO_DOCUMENTS = (400, "no_documents")
    WRONG_KEY = (401, "wrong_key")
    UNKNOWN_PATH = (404, "unknown_path")
    UNKNOWN_MODEL = (404, "unknown_model")
    WRONG_METHOD = (405, "wrong_method")
    BODY_TIMEOUT = (408, "body_timeout")
    TOO_LARGE = (413, "too_large")
    WRONG_MEDIA_TYPE = (415, "wrong_media_type")
    INVALID_INPUT = (422, "invalid_input")
    BUSY = (429, "busy")
    CLIENT_GONE = (499, "client_gone")
    FAILED = (500, "failed")
    NOT_SUPPORTED = (501, "not_supported")
    NOT_READY = (503, "not_ready")
    TIMEOUT = (504, "timeout")

    def __init__(self, status: int, label: str) -> None:
        self.status = status
        self.label = label


class RequestError(AT2Error):
    """A request that can't be served.

    Args:
        kind: What is wrong.
        message: What was wrong, the value, the limit and the fix.
        retry_after: Seconds after which the client may try again; None for no such header.
    """

    def __init__(self, kind: ErrorKind, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the error."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.kind is ErrorKind.WRONG_KEY:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def as_request_error(error: Exception) -> RequestError:
    """Return an error of the library, or any other, as what the client is told."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputError):
        return RequestError(ErrorKind.INVALID_INPUT, str(error))
    if isinstance(error, PrunerBusyError):
        return RequestError(
            ErrorKind.BUSY, "too many requests wait already; try again later", retry_after=1
        )
    return RequestError(
        ErrorKind.FAILED, "the server failed; its log says more under this response's x-request-id"
    )
