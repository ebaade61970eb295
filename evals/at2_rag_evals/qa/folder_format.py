"""Which version of the eval wrote a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from at2_rag.errors import InputError

FORMAT = 1
"""Version of all files of a results folder; raised when one of them is no longer read alike."""

FORMAT_FILE, SUMMARY_FILE = "format.json", "summary.json"


def claim_folder(folder: Path) -> None:
    """Mark a folder as one of this version's.

    Raises:
        InputError: If another version wrote to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FORMAT_FILE
    if path.exists():
        _check(_read(path), path)
    elif (folder / SUMMARY_FILE).exists():
        read_summary(folder)
    path.write_text(json.dumps({"eval": "qa", "format": FORMAT}) + "\n", encoding="ascii")


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
    summary = _read(path)
    _check(summary, path)
    return summary


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}); choose another folder") from error
    return values if isinstance(values, dict) else {}


def _check(values: dict[str, Any], path: Path) -> None:
    found = (values.get("eval"), values.get("format"))
    if found != ("qa", FORMAT):
        raise InputError(
            f"{path} is of eval {found[0]!r} in format {found[1]!r}, this version reads and writes "
            f"'qa' in format {FORMAT}; choose another --output, or use the at2-rag that wrote it"
        )
