"""API keys: read from a file and the environment, compared in constant time."""

from __future__ import annotations

import hmac
import os
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path

from at2_rag.errors import InputError
from at2_rag.server.telemetry.logs import access_log

KEYS_VARIABLE = "AT2_RAG_API_KEYS"
"""Environment variable with keys, separated by commas or white space."""


def read_keys(file: Path | None) -> tuple[str, ...]:
    """Return the keys of a file, one a line, and those of the environment.

    Blank lines of the file, and those that begin with #, are left out.

    Raises:
        InputError: If the file can't be read or has no key, or the variable is set but has none.
    """
    variable = os.environ.get(KEYS_VARIABLE)
    keys = (variable or "").replace(",", " ").split()
    if variable is not None and not keys:  # an empty secret must not open the server, either
        raise InputError(f"{KEYS_VARIABLE} is set, but has no key; write one, or unset it")
    if file is None:
        return tuple(keys)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"the keys in {file} can't be read: {error}") from error
    in_file = [line for line in lines if line and not line.startswith("#")]
    if not in_file:  # an empty file must not open the server to everybody
        raise InputError(f"{file} has no key; write one a line, or leave --api-key-file out")
    return (*in_file, *keys)


class Keys:
    """Tells whether a request carries one of the keys; without any, every request may pass."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Digests, so that the time of a comparison tells nothing of a key's length either.
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def allow(self, authorization: bytes) -> bool:
        """Tell whether the value of an Authorization header is `Bearer` and a key."""
        if not self._digests:
            return True
        scheme, _, key = authorization.partition(b" ")
        digest = sha256(key.strip()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def warn_if_open(keys: Collection[str], host: str) -> None:
    """Log a warning if there are no keys and other machines reach the address."""
    if not keys and host not in ("127.0.0.1", "::1", "localhost"):
        access_log.warning(
            "whoever reaches %s may use this server; set keys with --api-key-file", host
        )
