"""What the scripts share: their options, and a report in Markdown and JSON."""

from __future__ import annotations

import functools
import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch
from click.core import ParameterSource
from models import prompt_builder
from prompts import PromptSet, read_prompts
from timing import UNIT, Spread, TimedRun

from at2_rag.errors import AT2Error, UnsupportedModelError
from at2_rag.files import without_folder
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag_evals.provenance import file_record, git_state, package_versions

Value = str | int | float | Spread | None
Row = Mapping[str, Value]

POSITIVE = click.IntRange(min=1)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

ablations_option = click.option(
    "--ablations", is_flag=True, help="Also 32 ablations by removal; takes minutes."
)
reference_option = click.option(
    "--reference",
    type=FOLDER,
    multiple=True,
    help="Also at2 0.0.1, installed in this folder; repeat for several folders.",
)

_ENOUGH_OF_THE_CORES = 0.9


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """The options that all scripts have.

    Attributes:
        model: The scoring model: a known name, a local folder or a hub id.
        dtype: Name of a torch dtype; None for what the pruner would choose.
        threads: Threads of torch.
        data: Questions with chunks; None for the passages of examples/.
        output: Folder for the report; None for none.
        prompt_tokens: Fewest and most tokens of a prompt of ten chunks.
    """

    model: str
    dtype: str | None
    threads: int
    data: Path | None
    output: Path | None
    prompt_tokens: tuple[int, int]

    def load(self) -> LoadedModel:
        """Load the model as the pruner would, and set torch's threads.

        Raises:
            ModelNotFoundError: If the model can't be found or read.
            UnsupportedModelError: If it doesn't run on sdpa attention, as the unit of time does.
        """
        torch.set_num_threads(self.threads)
        loaded = LoadedModel.from_pretrained(self.model, device="cpu", dtype=self.dtype)
        attention = loaded.model.config._attn_implementation
        if attention != "sdpa":
            raise UnsupportedModelError(
                f"{self.model} runs on {attention!r} attention; the unit of time is a forward pass "
                "on 'sdpa', so pass a model that has it"
            )
        return loaded

    def prompts(self, model: LoadedModel, count: int) -> PromptSet:
        """Return the first `count` prompts of the wanted length."""
        return read_prompts(
            self.data, prompt_builder(model), count=count, lengths=self.prompt_tokens
        )


class Report:
    """What one run of a script measured; written anew after each table.

    Args:
        title: Heading of the Markdown.
        options: What the script was run with.
        model: The model, loaded.
        **settings: What else the run was asked for, JSON-ready.
    """

    def __init__(
        self, title: str, options: SharedOptions, model: LoadedModel, **settings: Any
    ) -> None:
        context = click.get_current_context()
        self.title, self.output = title, options.output
        self.name, self.command = context.command.name, command_line(context)
        self.settings: dict[str, Any] = {
            "model": without_folder(options.model),
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "threads": options.threads,
            "data": None if options.data is None else file_record(options.data),
            **settings,
        }
        self.machine = machine_facts()
        self.tables: dict[str, Sequence[Row]] = {}
        self.notes: list[str] = []
        self.plots: dict[str, str] = {}
        """SVG by title."""

    def add(self, title: str, rows: Sequence[Row], *notes: str) -> None:
        """Add a table, show it, and write the report as far as it goes."""
        self.tables[title] = rows
        self.notes += notes
        click.echo("\n\n".join([*notes, markdown_table(title, rows)]) + "\n")
        if self.output is not None:
            self.output.mkdir(parents=True, exist_ok=True)
            self._write(self.output)

    def _write(self, folder: Path) -> None:
        facts = {
            "command": self.command,
            "settings": self.settings,
            "machine": self.machine,
            "git": git_state(),
            "packages": {**package_versions(), "psutil": psutil.__version__},
            "notes": self.notes,
            "tables": self.tables,
        }
        parts = [f"# {self.title}", f"    {self.command}", machine_note(self.machine), *self.notes]
        for number, (title, svg) in enumerate(self.plots.items(), start=1):
            plot = folder / f"{self.name}-{number}.svg"
            plot.write_text(svg + "\n", encoding="utf-8")
            parts.append(f"![{title}]({plot.name})")
        parts += [markdown_table(title, rows) for title, rows in self.tables.items()]
        for ending, text in (
            ("json", json.dumps(facts, indent=2, default=asdict)),
            ("md", "\n\n".join(parts)),
        ):
            (folder / f"{self.name}.{ending}").write_text(text + "\n", encoding="utf-8")


def markdown_table(title: str, rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table under their title; their keys are the columns, padded."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    cells = [header, *([cell(row.get(name)) for name in header] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = [":".rjust(width, "-") for width in widths]
    rule[0] = rule[0].replace(":", "-")
    lines = [
        f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |"
        for line in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join([f"### {title}", "", *lines])


def cell(value: Value) -> str:
    """Return a value as a table shows it: a median with its quartiles, three figures or more."""
    if isinstance(value, Spread):
        return f"{cell(value.median)} ({cell(value.low)}-{cell(value.high)})"
    if isinstance(value, float):
        return f"{value:,.{3 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"
    if isinstance(value, int):
        return f"{value:,}"
    return (value or "").replace("|", "\\|")


def growth_notes(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Return in words how columns grow with the number of chunks; none of fewer than two rows."""
    if len(rows) < 2:
        return []
    sizes = [row["chunks"] for row in rows]
    powers = (
        f"{exponent(sizes, [row[column] for row in rows]):.3f} ({column})" for column in columns
    )
    return [
        f"From {sizes[0]} to {sizes[-1]} chunks the figures grow with the number of chunks to the "
        f"power of {' and '.join(powers)}."
    ]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return k of the best fit `value = c * size**k`: the slope in log-log coordinates."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def machine_facts() -> dict[str, Any]:
    """Return the kind of machine (never its name), and how busy it was in the last minute."""
    get_capabilities = getattr(torch.cpu, "get_capabilities", dict)  # missing in older torch
    capabilities: dict[str, Any] = get_capabilities()
    return {
        "cpu": capabilities.get("cpu_name") or platform.processor(),
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability()
        + (" with AMX" if capabilities.get("amx_bf16") else ""),
        "cores": psutil.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "busy_before": round(psutil.getloadavg()[0] / (psutil.cpu_count() or 1), 2),
    }


def machine_note(machine: Mapping[str, Any]) -> str:
    """Return the kind of machine as a sentence."""
    return (
        f"{machine['cpu']} ({machine['instructions']}), {machine['cores']} cores, "
        f"{machine['ram_gb']} GB, {machine['system']}; load before the run: "
        f"{machine['busy_before']:.0%} of the cores."
    )


def share_note(runs: Sequence[TimedRun], *, threads: int) -> str:
    """Return the share of its cores that the unit got, with a warning where it is too small."""
    share = statistics.median(
        run.cpu_seconds / (run.seconds * threads) for run in runs if run.case == UNIT
    )
    note = f"Processor time of the unit: {share:.0%} of what its threads could have had."
    if share < _ENOUGH_OF_THE_CORES:
        note += " Other work was running: don't rely on these times."
    return note


def command_line(context: click.Context) -> str:
    """Return the command line that a script was run with; of paths only their last part."""
    words = [f"python benchmarks/{context.command.name}.py"]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            for one in value if parameter.multiple else [value]:
                parts = one if isinstance(one, tuple) else () if one is True else (one,)
                words += [parameter.opts[-1], *map(_without_folder, parts)]
    return " ".join(words)


def _without_folder(value: Any) -> str:
    return value.name if isinstance(value, Path) else without_folder(str(value))


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all scripts have, passed as `shared`; show known errors in one line."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        shared = SharedOptions(**{one.name: options.pop(one.name) for one in fields(SharedOptions)})
        try:
            command(shared=shared, **options)
        except (AT2Error, ImportError, OSError) as error:
            raise click.ClickException(str(error)) from error

    for option in (
        click.option("--threads", type=POSITIVE, default=2, help="Threads of torch."),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16"]),
            help="Type of the model's numbers.  [default: what the pruner chooses]",
        ),
        click.option(
            "--model", default=DEFAULT_MODEL, help="Scoring model: a known name, folder or hub id."
        ),
        click.option(
            "--prompt-tokens",
            type=(POSITIVE, POSITIVE),
            default=(1200, 1400),
            metavar="MIN MAX",
            help="Length of the prompts of ten chunks.",
        ),
        click.option("--output", type=FOLDER, help="Folder for the report, as .json and .md."),
        click.option(
            "--data",
            type=FILE,
            help="Questions with chunks, .jsonl(.gz).  [default: passages of examples/]",
        ),
    ):
        run = option(run)
    return run
