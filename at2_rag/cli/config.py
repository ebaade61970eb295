"""Options from the environment and from a TOML file.

The command line wins over the environment (`AT2_RAG_TOP_K`), that over the file, and that over the
defaults. The file is the one that `--config` or `AT2_RAG_CONFIG` names, or else the user's own;
none is looked for in the current folder, which may be someone else's. A key holds for every command
with such an option, in a command's table for that one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import platformdirs
from click.core import ParameterSource

from at2_rag.errors import brief

PREFIX = "AT2_RAG_"
"""How the variables of options begin."""

_FILE = "at2_rag.config_file"


def config_option() -> click.Option:
    """Return the option that reads a file of options."""
    return click.Option(
        ["--config"],
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        envvar=f"{PREFIX}CONFIG",
        callback=_read,
        help="TOML file of options by their long names. Each can also be set by a variable, as "
        "--config by AT2_RAG_CONFIG.",
    )


def name_variables(command: click.Command) -> None:
    """Let each option of a command be set by the environment.

    But none that does something else than the command, or answers its question.
    """
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not (parameter.is_eager or parameter.prompt):
            parameter.envvar = PREFIX + _key(parameter).upper()


def user_config_file() -> Path | None:
    """Return the user's own file, which may not exist; None for a user without a home folder."""
    try:
        path = Path(platformdirs.user_config_dir("at2_rag", appauthor=False)) / "config.toml"
    except RuntimeError:
        return None
    return path if path.is_absolute() else None  # "~" that stands for no folder


def flag(parameter: click.Parameter) -> str:
    """Return a parameter's long name as on the command line."""
    return max(parameter.opts, key=len)


def origin(context: click.Context, name: str) -> str:
    """Say which variable or file a parameter's value is from; empty if from neither."""
    source = context.get_parameter_source(name)
    parameter = next(each for each in context.command.params if each.name == name)
    if source is ParameterSource.ENVIRONMENT:
        return f"from {parameter.envvar}"
    if source is ParameterSource.DEFAULT_MAP:
        return f"from {_key(parameter)} in {context.meta.get(_FILE)}"
    return ""


def _key(parameter: click.Parameter) -> str:
    return flag(parameter).lstrip("-").replace("-", "_")


def _read(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Make a file's values the defaults of the other options."""
    default_file = user_config_file() if path is None else None
    path = default_file if default_file is not None and os.path.isfile(default_file) else path
    if path is None or context.resilient_parsing:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{path} can't be read as TOML: {error}") from error
    context.meta[_FILE] = path
    context.default_map = {**(context.default_map or {}), **_defaults(document, path, context)}


def _defaults(document: Mapping[str, Any], path: Path, context: click.Context) -> dict[str, Any]:
    """Return name of parameter -> value, of what a document says for a command."""
    settable = _settable(context.command)
    steps: list[str | None] = [None]
    while context.parent is not None:
        steps.insert(0, context.info_name)
        context = context.parent
    level: click.Command | None = context.command
    table, prefix = document, ""
    values: dict[str, Any] = {}
    for step in steps:
        known = dict(_all_settable(level, context))
        commands = level.list_commands(context) if isinstance(level, click.Group) else []
        for key, value in table.items():
            name = key.replace("-", "_")
            if isinstance(value, dict):
                if key not in commands:
                    raise _unknown(f"table [{prefix}{key}]", path, commands or known)
            elif name not in known:
                within = f" in [{prefix[:-1]}]" if prefix else ""
                raise _unknown(f"key {key!r}{within}", path, known)
            elif parameter := settable.get(name):
                values[str(parameter.name)] = _checked(parameter, value, f"{path}: {prefix}{key}")
        table = table.get(step, {}) if step else {}
        level = (
            level.get_command(context, step) if isinstance(level, click.Group) and step else level
        )
        prefix += f"{step}."
    return values


def _settable(command: click.Command) -> dict[str, click.Parameter]:
    """Return key -> parameter, of what a file may set: options, and files as `files`."""
    return {
        _key(parameter): parameter
        for parameter in command.params
        if (parameter.nargs == -1 or parameter.envvar) and not parameter.is_eager
    }


def _all_settable(
    command: click.Command | None, context: click.Context
) -> Iterator[tuple[str, click.Parameter]]:
    """Yield the same of a command, or of all commands of a group."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _all_settable(command.get_command(context, name), context)
    elif command is not None:
        yield from _settable(command).items()


def _unknown(what: str, path: Path, known: Any) -> click.UsageError:
    return click.UsageError(
        f"{path} has the {what}, which is unknown; the known ones are {', '.join(sorted(known))}"
    )


def _checked(parameter: click.Parameter, value: Any, key: str) -> Any:
    """Return a value, a list where there may be several; click would take 1.5 for an integer."""
    kinds, wanted = _kinds(parameter.type)
    may_repeat = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    is_list = may_repeat or parameter.nargs > 1
    items = value if is_list and isinstance(value, list) else [value]
    if not all(type(item) in kinds for item in items):
        wanted = f"a list, each {wanted}" if is_list else wanted
        raise click.UsageError(f"{key} is {brief(value)}; pass {wanted}")
    if isinstance(parameter.type, click.Path):
        items = [Path(item).expanduser() for item in items]  # as a shell does
    return items if is_list else items[0]


def _kinds(kind: click.ParamType[Any]) -> tuple[tuple[type, ...], str]:
    """Return the types of TOML values that an option takes, and what they are called."""
    if isinstance(kind, click.types.BoolParamType):
        return (bool,), "true or false"
    if isinstance(kind, click.types.IntParamType):
        return (int,), "an integer"
    if isinstance(kind, click.types.FloatParamType):
        return (int, float), "a number"
    return (str,), "a text in quotes"
