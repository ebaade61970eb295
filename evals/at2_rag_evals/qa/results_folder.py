"""What a run leaves in its output folder, and what other runs read from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from at2_rag.errors import InputError

FORMAT = 1
"""Version of the files; raised when one of them changes so that it can't be read as before."""

SUMMARY_FILE, ITEMS_FILE = "summary.json", "items.jsonl"

_ITEM_KEYS = {
    *("generator", "pruner", "budget", "order", "gold_position"),
    *("source", "id", "content", "cluster", "metrics"),
}


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of a finished run.

    Raises:
        InputError: If there is none, or another version wrote it.
    """
    path = folder / SUMMARY_FILE
    if not path.exists():
        raise InputError(
            f"{folder} holds no {SUMMARY_FILE}; pass the --output folder of a finished "
            "`at2-rag eval qa`"
        )
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = (summary["eval"], summary["format"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} can't be read ({error!r}); choose another folder") from error
    if version != ("qa", FORMAT):
        raise InputError(
            f"{path} is of eval {version[0]!r} in format {version[1]!r}, this version reads and "
            f"writes 'qa' in format {FORMAT}; choose another folder, or use the at2-rag that wrote "
            "it"
        )
    return summary


def read_items(folder: Path) -> list[dict[str, Any]]:
    """Read the items of a finished run, one for each cell.

    Raises:
        InputError: If they can't be read.
    """
    path = folder / ITEMS_FILE
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(_ITEM_KEYS <= set(record) for record in records):
            raise ValueError(f"a line lacks one of the keys {', '.join(sorted(_ITEM_KEYS))}")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} can't be read ({error}); run the eval again") from error
    return records
