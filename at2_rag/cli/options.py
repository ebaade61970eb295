"""Command-line options built from `PruneOptions`, and those with which commands load a pruner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource

from at2_rag.cli.command_line import headed
from at2_rag.cli.config import origin
from at2_rag.cli.passages import DEFAULT_COLUMNS, Columns, Format
from at2_rag.options import PruneOptions, plain_types
from at2_rag.text.tokens import resolve_token_counter

if TYPE_CHECKING:
    from at2_rag.pruner import AT2Pruner

_Command = TypeVar("_Command", bound=Callable[..., Any])

headed_input = headed("Input")
headed_limits = headed("Limits, which must all hold")
headed_keeping = headed("What to keep")
headed_reading = headed("How it is read")

_MODEL_OPTIONS = (
    headed_reading(
        "--model",
        help="Scoring model: a known name, a folder or a hub id.  [default: smollm2-135m-instruct]",
    ),
    headed_reading("--revision", help="Revision of a model from the hub."),
    headed_reading(
        "--head-weights",
        help="'best', 'balanced' or 'fast' (fewer layers, lower quality) or 'joint', which come "
        "with at2-rag for its default model; 'uniform', the mean of all heads, for any model; or a "
        "folder that at2-rag train wrote.  [default: 'best', or 'joint' for joint reading]",
    ),
    headed_reading(
        "--reading",
        type=click.Choice(["independent", "joint"]),
        help="Read each chunk by itself, or all in one prompt.  "
        "[default: what the head weights are for]",
    ),
    headed_reading(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help="Type of the model's numbers.  [default: bfloat16 where the device is fast at it]",
    ),
    headed_reading(
        "--device", help="Where the model runs.  [default: cuda if there is one, else cpu]"
    ),
)

chunk_cache_option = headed_reading(
    "--chunk-cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder of chunk states.  [default: chunk_states in at2-rag's cache]",
)


_INPUT_OPTIONS = (
    headed_input(
        "--format",
        "form",
        type=click.Choice(get_args(Format)),
        help="Format of files.  [default: by a file's ending, then by its content]",
    ),
    headed_input(
        "--text-column",
        metavar="NAME",
        default=DEFAULT_COLUMNS.text,
        show_default=True,
        help="Column of CSV with the passages.",
    ),
    headed_input(
        "--title-column",
        metavar="NAME",
        default=DEFAULT_COLUMNS.title,
        show_default=True,
        help="Column of CSV with their titles, if there are any.",
    ),
)


def input_options(command: _Command) -> _Command:
    """Add the options that say how passages are read from files."""
    for option in reversed(_INPUT_OPTIONS):
        command = option(command)
    return command


def chosen_columns(text: str, title: str) -> Columns:
    """Return the columns of CSV; files without columns are refused if the command names one."""
    source = click.get_current_context().get_parameter_source
    named = ParameterSource.COMMANDLINE in (source("text_column"), source("title_column"))
    return Columns(text, title, required=named)


def model_options(command: _Command) -> _Command:
    """Add the options of the scoring model and its head weights."""
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


def prune_options(options: type[PruneOptions]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds an option for each field of a type that checks its values."""
    types = plain_types(options)

    def add(command: _Command) -> _Command:
        for field in reversed(fields(options)):
            kind = types[field.name][0]
            flag = f"--{field.name.replace('_', '-')}"
            heading = headed_limits if field.metadata["limit"] else headed_keeping
            command = heading(
                f"{flag}/--no{flag[1:]}" if kind is bool else flag,
                type=click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind,
                default=field.default,
                show_default=field.default is not None,
                help=field.metadata["help"],
            )(command)
        return command

    return add


def taken_options(options: type[PruneOptions], values: dict[str, Any]) -> PruneOptions:
    """Take the values of a type of options out of a command's arguments."""
    settings = {field.name: values.pop(field.name) for field in fields(options)}
    try:
        return options(**settings)
    except ValueError as error:
        message = str(error).replace(", or None for no such limit", "")
        name = message.partition(" ")[0]
        if name in settings:
            message = message.replace(name, f"--{name.replace('_', '-')}", 1)
            source = origin(click.get_current_context(), name)
            message += f" ({source})" if source else ""
        raise click.UsageError(message) from error


def default_chunk_cache() -> Path:
    """Return the folder in which `at2-rag index` keeps chunk states by default."""
    from at2_rag.model.cache import cache_dir

    return cache_dir() / "chunk_states"


def load_pruner(
    *,
    model: str | None,
    head_weights: str | None,
    token_counter: str | None = None,
    **settings: Any,
) -> AT2Pruner:
    """Load a pruner with settings of `AT2Pruner.from_pretrained`; None for a default."""
    # An unusable counter is refused at once, before torch is imported.
    counter = None if token_counter is None else resolve_token_counter(token_counter)

    from at2_rag.pruner import AT2Pruner
    from at2_rag.readout.shipped import named_or_folder

    return AT2Pruner.from_pretrained(
        *(() if model is None else (model,)),
        head_weights=named_or_folder(head_weights),
        token_counter=counter,
        **settings,
    )
