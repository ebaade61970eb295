"""`at2-rag eval qa` as tests run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from at2_rag_evals.cli import eval_group


def run(*arguments: object) -> Result:
    """Run the command; raise what it raises but the end of the process."""
    result = CliRunner().invoke(eval_group, ["qa", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def report(*arguments: object) -> dict[str, Any]:
    """Run the command and return what it prints as JSON."""
    printed: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return printed


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
