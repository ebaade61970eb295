"""Logs as JSON, one object a line, with the id of the request and without any document text."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is served; None outside of requests."""

access_log = logging.getLogger("at2_rag.server.access")
"""Gets a record for each request, with `fields` of its own."""


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object.

    Of an exception it shows the class and where it was raised, but not the message: that may quote
    a question or a document.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a line of ASCII."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (identity := request_id.get()) is not None:
            line["request_id"] = identity
        line |= getattr(record, "fields", {})
        if record.exc_info and (error := record.exc_info[1]) is not None:
            line["exception"] = type(error).__name__
            frames = traceback.extract_tb(error.__traceback__)
            line["raised_at"] = [f"{frame.filename}:{frame.lineno}" for frame in frames]
        return json.dumps(line)


def log_as_json(level: int = logging.INFO) -> None:
    """Send the records of at2_rag and uvicorn to standard error as JSON, and others' warnings."""
    for name, least in (("at2_rag", level), ("uvicorn", level), (None, logging.WARNING)):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        handler.setLevel(least)
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(least)
    logging.captureWarnings(True)
    for name in ("transformers", "huggingface_hub"):  # which write lines of their own otherwise
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
