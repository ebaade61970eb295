"""Requests of the eval commands: frozen dataclasses whose fields are the commands' options.

@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    files: tuple[Path, ...] = argument(nargs=-1, type=click.Path(path_type=Path))
    limit: int | None = option(type=click.IntRange(min=1), help="Judge the first N items.")
    orders: tuple[str, ...] = option("--order", default=("score",), multiple=True)

@click.command()
@request_options(Request)
def command(**values: Any) -> None:
    run(Request(**values))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from at2_rag.cli.command_line import Option
from at2_rag.files import without_folder
from at2_rag_evals.store import STORE_FILE

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


def option(*flags: str, default: Any = None, **attributes: Any) -> Any:
    """Return a dataclass field that is an option of the command.

    Args:
        flags: The option's names, such as "--order"; none for the field's name.
        default: The field's and the option's default; `()` for one that may be repeated. The help
            shows it unless it is None, empty or False.
        attributes: What else `click.option` takes, and the `heading` in the help.
    """
    if attributes.get("required"):
        return field(metadata={"click": (click.option, flags, {"cls": Option, **attributes})})
    if attributes.get("multiple") and default is None:
        default = ()
    attributes = {"cls": Option, **attributes}
    shown = default not in (None, ()) and default is not False
    attributes = {"default": default, "show_default": shown} | attributes
    return field(default=default, metadata={"click": (click.option, flags, attributes)})


def argument(**attributes: Any) -> Any:
    """Return a dataclass field that takes the command's positional arguments."""
    return field(default=(), metadata={"click": (click.argument, (), attributes)})


def request_options(request: type) -> Callable[[Any], Any]:
    """Return a decorator that gives a click command a parameter for each field of a request."""

    def decorate(function: Any) -> Any:
        for declared in reversed(fields(request)):
            make, flags, attributes = declared.metadata["click"]
            names = () if make is click.argument else flags or (_default_flag(declared.name),)
            function = make(*names, declared.name, **attributes)(function)
        return function

    return decorate


def command_line(command: str, request: Any) -> str:
    """Return the command line that makes a request, without defaults.

    Of paths it has the last part only, so that a report tells nothing about the machine.
    """
    parts = [part for declared in fields(request) for part in _parts(declared, request)]
    return " ".join([command, *parts])


def _parts(declared: Field[Any], request: Any) -> Iterator[str]:
    value = getattr(request, declared.name)
    if value == declared.default:
        return
    make, flags, attributes = declared.metadata["click"]
    flag = flags[0] if flags else _default_flag(declared.name)
    if make is click.argument:
        yield from map(_shown, value if isinstance(value, tuple) else (value,))
    elif isinstance(value, bool):
        yes, _, no = flag.partition("/")
        yield yes if value else no
    elif attributes.get("multiple"):
        yield from (f"{flag} {_shown(one)}" for one in value)
    elif isinstance(value, tuple):
        yield " ".join([flag, *map(_shown, value)])
    else:
        yield f"{flag} {_shown(value)}"


def _default_flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Path):
        return value.name or value.resolve().name
    return without_folder(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRequest:
    """The options that the eval commands share."""

    files: tuple[Path, ...] = argument(nargs=-1, required=True, type=FILE)
    output: Path | None = option(
        type=FOLDER,
        help="Folder for the report, figures of each item, and stored scores, from which a killed "
        "run continues.",
        heading="Output",
    )
    limit: int | None = option(
        type=click.IntRange(min=1),
        metavar="N",
        help="Judge only the first N items of each source.",
        heading="Items",
    )
    seed: int = option(
        default=0,
        type=click.IntRange(min=0),
        help="Of everything that is drawn at random.",
        heading="Items",
    )
    model: str | None = option(
        help="Scoring model: a known name, a folder or a hub id.",
        heading="What is judged",
    )
    head_weights: str | None = option(
        help="Head weights of at2: a folder, the name of shipped ones, or uniform.",
        heading="What is judged",
    )

    @property
    def store(self) -> Path | None:
        """Where scores are stored; None for nowhere."""
        return None if self.output is None else self.output / STORE_FILE
