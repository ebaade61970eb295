"""What the benchmarks' command lines share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from at2_rag.errors import AT2Error
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag_evals.provenance import without_folder


def positive(text: str) -> int:
    """Read a whole number from 1.

    Raises:
        ValueError: If it is none.
    """
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def add_shared_options(parser: argparse.ArgumentParser, *, report: str) -> None:
    """Add the options that every benchmark has.

    Args:
        parser: The parser.
        report: Name of the files it writes, without their endings.
    """
    add = parser.add_argument
    add("--data", type=Path, help="questions with chunks, .jsonl(.gz); None: the examples' own")
    add("--output", type=Path, help=f"folder for {report}.json and {report}.md")
    add("--prompt-tokens", type=positive, nargs=2, default=[1200, 1400], metavar=("MIN", "MAX"))
    add("--threads", type=positive, default=2, help="threads of torch")
    add("--model", default=DEFAULT_MODEL, help="a known name, a folder or a hub id")
    add("--dtype", choices=["float32", "bfloat16"], help="None: what the pruner chooses")


def exit_code(run: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Run a benchmark; what a user can mend is told in one line, and the code is 1."""
    try:
        run(options)
    except (AT2Error, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def command_of(script: str, parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """Return the command line, with the names of files and folders but not where they are.

    Args:
        script: The script's path in the project.
        parser: Its parser.
        options: What the parser returned; those with their default value are left out.
    """
    parts = [f"python {script}"]
    for name, default in vars(parser.parse_args([])).items():
        value = getattr(options, name)
        if value == default:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words = (v.name if isinstance(v, Path) else without_folder(str(v)) for v in values)
        parts += [f"--{name.replace('_', '-')}", *words]
    return " ".join(parts)
