"""JSON Lines that are only appended to, and whole after a kill.

A line is on its way to the disk before `append_line` returns. One torn by a kill is cut off on the
next start, with everything after it, so that what it held is done again and nothing twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)


def read_lines(path: Path, take: Callable[[Any], None]) -> None:
    """Hand every record of a file to `take`, and cut the file after the last whole line.

    Args:
        path: The file; need not exist.
        take: Gets each record; raises ValueError, KeyError or TypeError for one it can't use.
    """
    if not path.exists():
        return
    end = lines = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            try:
                take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                break
            end += len(line)
            lines += 1
    if end < path.stat().st_size:
        _LOG.warning("%s: cut after %d whole lines; the rest is done again", path, lines)
        with path.open("r+b") as stream:
            stream.truncate(end)


def append_line(path: Path, record: Mapping[str, object]) -> None:
    """Append a record."""
    with path.open("ab") as stream:
        stream.write(json.dumps(record).encode("ascii") + b"\n")
