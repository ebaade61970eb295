"""What may be written to a terminal: text that neither steers it nor reorders its lines."""

from __future__ import annotations

import re

# Controls but tabs and ends of lines, lone surrogates, overrides of the direction of writing.
_STEERING = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
)


def visible(text: str) -> str:
    """Return a text whose characters that would steer a terminal are replaced by U+FFFD."""
    return _STEERING.sub("\ufffd", text)
