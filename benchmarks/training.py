"""What training costs, from what finished `at2-rag train` runs say of themselves.

python benchmarks/training.py RUN [RUN ...] --extrapolate 4000 --output FOLDER

README.md beside this file says what is in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from command_line import positive
from machine import machine_class
from report_files import show_report, write_report

from at2_rag.errors import AT2Error, DataError
from at2_rag_evals.tables import Cell, Table

FORMAT = 1
_RECORD = "training.json"


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What one run took, or would take.

    Attributes:
        command: Its command line.
        examples: Examples it learned from.
        reading: Seconds of reading and ablating them.
        fitting: Seconds of all the rest: loading, cross-validation, learning curve, fit.
        peak_memory_mb: Most memory its process held, the model included; None where that isn't
            known.
        measured: False for what is worked out from another run.
    """

    command: str
    examples: int
    reading: float
    fitting: float
    peak_memory_mb: int | None
    measured: bool = True

    def extrapolated(self, examples: int) -> TrainingCost:
        """Return the run with another number of examples, every second in proportion to them."""
        times = examples / self.examples
        return TrainingCost(
            self.command, examples, self.reading * times, self.fitting * times, None, measured=False
        )


def training_cost(folder: Path) -> TrainingCost:
    """Read what a run says of itself.

    Args:
        folder: The run's output folder.

    Raises:
        DataError: If there is no record of a run, or its examples had been read by an earlier one.
    """
    path = folder / _RECORD
    try:
        record = json.loads(path.read_bytes())
        seconds = dict(record["run"]["seconds"])
        reading = float(seconds.pop("reading"))
        found = TrainingCost(
            command=str(record["command"]),
            examples=sum(record["samples"].values()),
            reading=reading,
            fitting=float(sum(seconds.values())),
            peak_memory_mb=record["run"]["peak_memory_mb"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no record of a training run ({error!r})") from error
    if found.reading < 0.01 * found.examples:
        raise DataError(
            f"{path}: reading {found.examples} examples took {found.reading} s, so an earlier run "
            "had read them; pass the record of a run that read its own"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the report; return the exit code."""
    parser = argparse.ArgumentParser(description="What training runs cost.")
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="output folder of `at2-rag train`")
    add("--extrapolate", type=positive, nargs="*", default=[], metavar="N", help="examples")
    add("--output", type=Path, metavar="FOLDER", help="write training.json and training.md")
    options = parser.parse_args(arguments)
    try:
        costs = [training_cost(folder) for folder in options.runs]
    except AT2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    largest = max(costs, key=lambda own: own.examples)
    costs += [largest.extrapolated(examples) for examples in options.extrapolate]
    names = " ".join(folder.name for folder in options.runs)
    extrapolated = "".join(f" {examples}" for examples in options.extrapolate)
    report = {
        "format": FORMAT,
        "command": f"python benchmarks/training.py {names}"
        + (f" --extrapolate{extrapolated}" if extrapolated else "")
        + (f" --output {options.output.name}" if options.output else ""),
        "machine": machine_class(),
        "runs": [asdict(own) for own in costs],
    }
    tables = [cost_table(costs)]
    show_report(remarks(report), tables)
    if options.output is not None:
        write_report(
            options.output / "training",
            report,
            title="Time and memory of training",
            remarks=remarks(report),
            tables=tables,
        )
    return 0


def cost_table(costs: Sequence[TrainingCost]) -> Table:
    """Lay out what runs took."""
    header = ("examples", "reading, s", "an example, s", "fitting, s", "peak of the process, MB")
    rows = [
        [
            Cell(f"{own.examples:,}" + ("" if own.measured else " (extrapolated)")),
            Cell(f"{own.reading:,.0f}"),
            Cell(f"{own.reading / own.examples:.2f}"),
            Cell(f"{own.fitting:,.0f}"),
            Cell("" if own.peak_memory_mb is None else f"{own.peak_memory_mb:,}"),
        ]
        for own in costs
    ]
    return Table("Training", list(map(Cell, header)), rows)


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what to know beside the table, a paragraph each."""
    machine = report["machine"]
    for own in report["runs"]:
        if own["measured"]:
            yield f"{own['examples']:,} examples: {own['command']}"
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_gb']} GB. The peak is that of "
        "the whole process, with the model and the features of all designs that are compared; what "
        "collecting takes above the model is in the table of cost.py. Extrapolated "
        "rows take every second of the largest run in proportion to the examples."
    )


if __name__ == "__main__":
    sys.exit(main())
