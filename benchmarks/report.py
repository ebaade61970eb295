"""What the scripts share: their options, and a report in Markdown and JSON."""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
import torch
from click.core import ParameterSource
from models import Subject, prompt_builder
from prompts import PromptSet, read_prompts
from timing import Spread

from at2_rag.errors import AT2Error
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag_evals.provenance import file_record, git_state, package_versions, without_folder

Value = str | int | float | Spread | None
Row = Mapping[str, Value]

_ENOUGH_OF_THE_CORES = 0.9


@dataclass(slots=True)
class Report:
    """What one run measured.

    Attributes:
        name: Name of the script and of the files, without ending.
        title: Heading of the Markdown.
        output: Folder for `name.json` and `name.md`, written anew after each table; None for none.
        settings: What the run was asked for and what it read, JSON-ready.
        command: The command line, see `command_line`.
        tables: Rows by title; the keys of a row are the columns.
        notes: Paragraphs above the tables.
        plots: SVG by title.
    """

    name: str
    title: str
    output: Path | None
    settings: Mapping[str, Any]
    command: str
    tables: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=lambda: machine_facts())

    def add(self, title: str, rows: Sequence[Row], *notes: str) -> None:
        """Add a table, show it, and write the report as far as it goes."""
        self.tables[title] = list(rows)
        self.notes += notes
        click.echo("\n\n".join([*notes, markdown_table(title, rows)]) + "\n")
        self.write()

    def write(self) -> None:
        """Write the files, where there is a folder for them."""
        if self.output is None:
            return
        self.output.mkdir(parents=True, exist_ok=True)
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
            plot = self.output / f"{self.name}-{number}.svg"
            plot.write_text(svg + "\n", encoding="utf-8")
            parts.append(f"![{title}]({plot.name})")
        parts += [markdown_table(title, rows) for title, rows in self.tables.items()]
        text = json.dumps(facts, indent=2, default=asdict) + "\n"
        (self.output / f"{self.name}.json").write_text(text, encoding="utf-8")
        text = "\n\n".join(parts) + "\n"
        (self.output / f"{self.name}.md").write_text(text, encoding="utf-8")


def markdown_table(title: str, rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table under their title, the columns padded."""
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


def share_note(what: str, share: float) -> str:
    """Return the share of the cores that timed work got, with a warning where it is too small.

    Args:
        what: The timed work, such as "the unit".
        share: Its processor time, divided by what its threads could have had.
    """
    note = f"Processor time of {what}: {share:.0%} of what its threads could have had."
    if share < _ENOUGH_OF_THE_CORES:
        note += " Other work was running: don't rely on these times."
    return note


def command_line(context: click.Context) -> str:
    """Return the command line that a script was run with; of paths only their last part."""
    words = [f"python benchmarks/{context.command.name}.py"]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        option = parameter.opts[-1]
        if value is True:
            words.append(option)
        else:
            parts = value if isinstance(value, tuple) else (value,)
            shown = [p.name if isinstance(p, Path) else without_folder(str(p)) for p in parts]
            words += (
                [f"{option} {text}" for text in shown] if parameter.multiple else [option, *shown]
            )
    return " ".join(words)


POSITIVE = click.IntRange(min=1)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """The options that all scripts have.

    Attributes:
        subject: The model under measurement.
        data: Questions with chunks; None for the passages of examples/.
        output: Folder for the report; None for none.
        prompt_tokens: Fewest and most tokens of a prompt of ten chunks.
    """

    subject: Subject
    data: Path | None
    output: Path | None
    prompt_tokens: tuple[int, int]

    def prompts(self, model: LoadedModel, count: int) -> PromptSet:
        """Return the first `count` prompts of the wanted length."""
        return read_prompts(
            self.data, prompt_builder(model), count=count, lengths=self.prompt_tokens
        )

    def report(self, name: str, title: str, model: LoadedModel, **settings: Any) -> Report:
        """Return an empty report of a run with these options.

        Args:
            name: Name of the script.
            title: Heading of the report.
            model: The model, loaded.
            **settings: What else the run was asked for, JSON-ready.
        """
        shared = {
            "model": without_folder(self.subject.model),
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "threads": self.subject.threads,
            "data": None if self.data is None else file_record(self.data),
        }
        command = command_line(click.get_current_context())
        return Report(name, title, self.output, {**shared, **settings}, command)


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all scripts have, passed as `shared`; show known errors in one line."""

    @functools.wraps(command)
    def run(
        model: str,
        dtype: str | None,
        threads: int,
        data: Path | None,
        output: Path | None,
        prompt_tokens: tuple[int, int],
        **options: Any,
    ) -> None:
        subject = Subject(model, dtype, threads)
        try:
            command(shared=SharedOptions(subject, data, output, prompt_tokens), **options)
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


def ablation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the ways that cost much more: ablations and the reference AT2."""
    command = click.option(
        "--reference",
        type=FOLDER,
        multiple=True,
        help="Also at2 0.0.1, installed in this folder; repeat for several folders.",
    )(command)
    return click.option(
        "--ablations", is_flag=True, help="Also 32 ablations by removal; takes minutes."
    )(command)
