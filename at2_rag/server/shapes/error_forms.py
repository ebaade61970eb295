"""What an error looks like in each shape, and under which status code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Any

from at2_rag.server.errors import ErrorKind, RequestError

_TEI_TYPES: Mapping[ErrorKind, str] = MappingProxyType(
    {
        ErrorKind.NO_DOCUMENTS: "Empty",
        ErrorKind.INVALID_INPUT: "Tokenizer",  # what TEI calls its 422
        ErrorKind.FAILED: "Backend",
        ErrorKind.TIMEOUT: "Backend",
        ErrorKind.NOT_READY: "Unhealthy",
        ErrorKind.BUSY: "Overloaded",
    }
)
_TEI_BACKEND_STATUS = 424

_VLLM_TYPES: Mapping[ErrorKind, str] = MappingProxyType(
    {
        ErrorKind.WRONG_KEY: "AuthenticationError",
        ErrorKind.UNKNOWN_PATH: "NotFoundError",
        ErrorKind.UNKNOWN_MODEL: "NotFoundError",
        ErrorKind.BUSY: "RateLimitError",
        ErrorKind.FAILED: "InternalServerError",
        ErrorKind.TIMEOUT: "InternalServerError",
        ErrorKind.NOT_READY: "ServiceUnavailableError",
    }
)


class ErrorForm(Enum):
    """How errors are written."""

    COHERE = auto()
    COHERE_V1 = auto()  # where clients of Cohere v1 and of Jina meet
    TEI = auto()
    VLLM = auto()
    VOYAGE = auto()
    AT2_RAG = auto()

    def status(self, error: RequestError) -> int:
        """Return the status code of an error: its kind's, but for a failure in TEI's form."""
        if self is ErrorForm.TEI and error.kind is ErrorKind.FAILED:
            return _TEI_BACKEND_STATUS
        return error.kind.status

    def body(self, error: RequestError) -> dict[str, Any]:
        """Return an error as JSON-ready values."""
        message, kind = str(error), error.kind
        match self:
            case ErrorForm.COHERE:
                return {"message": message}
            case ErrorForm.COHERE_V1:
                return {"message": message, "detail": message}
            case ErrorForm.TEI:
                return {"error": message, "error_type": _TEI_TYPES.get(kind, "Validation")}
            case ErrorForm.VLLM:
                label = _VLLM_TYPES.get(kind, "BadRequestError")
                return {
                    "error": {
                        "message": message,
                        "type": label,
                        "param": None,
                        "code": self.status(error),
                    }
                }
            case ErrorForm.VOYAGE:
                return {"detail": message}
            case ErrorForm.AT2_RAG:
                return {"error": kind.label, "message": message}
