"""Runs `at2-rag train` over the files of the fixture `data`, and reads what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from at2_rag import AT2Pruner
from at2_rag.cli.group import main
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.text.chunks import Chunk
from at2_rag.training.commands.record import PAGE_FILE, RECORD_FILE

ROOT = Path(__file__).parents[3]
FILES = ("novels.jsonl", "seas.jsonl.gz")
SHARDS = ["shard-00000.safetensors", "shard-00001.safetensors"]
MASS = ("--features", "mass:apart")
SEVERAL = ("--features", "log:together+apart", *MASS, "--depth", 3, "--depth", 1)
QUERY, CHUNKS = "who wrote of the owl?", [Chunk("a bridge"), Chunk("Austen, of a mill " * 3)]


def arguments(data: Path, *options: object, output: Path) -> list[str]:
    """Return the command line of a run over all files of a folder."""
    files = [data / name for name in FILES]
    fixed = ["--model", data / "tiny", "--dtype", "float32", "--folds", 4, "--output", output]
    return ["train", *map(str, [*files, *fixed, *options])]


def train(data: Path, *options: object, output: Path) -> Result:
    return CliRunner().invoke(main, arguments(data, *options, output=output))


def trained(data: Path, *options: object, output: Path) -> Path:
    """Run it, and return its output; a failure is an error."""
    done = train(data, *options, output=output)
    assert done.exit_code == 0, done.stderr
    return output


def last_line(done: Result) -> str:
    """Return the line in which a failed run says why."""
    assert done.exit_code == 1 and "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def pruner(data: Path, output: Path, **options: Any) -> AT2Pruner:
    return AT2Pruner.from_pretrained(data / "tiny", head_weights=output, dtype="float32", **options)


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def provenance(output: Path) -> Any:
    return json.loads((output / DESCRIPTION_FILE).read_text())["provenance"]


def record(output: Path) -> Any:
    return json.loads((output / RECORD_FILE).read_text())


def chosen(output: Path) -> Any:
    [row] = [row for row in record(output)["candidates"] if row["chosen"]]
    return row


def lasting(output: Path) -> dict[str, Any]:
    """Return all that a repeated run writes again: not times and memory, nor the page with them."""
    files: dict[str, Any] = dict(bytes_of(output))
    del files[PAGE_FILE], files[RECORD_FILE]
    known = record(output)
    del known["run"], known["command"], known["settings"]
    return {**files, "record": known}
