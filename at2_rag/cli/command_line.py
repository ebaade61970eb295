"""What the commands of `at2-rag` share: loading on use, `-v`, errors of one line.

A command is known by name and help line alone and is imported when it runs or shows its own
help, so that `at2-rag --help` costs no import of torch.
"""

from __future__ import annotations

import logging
import shlex
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from at2_rag.errors import AT2Error

_VERBOSE = "at2_rag.verbose"
_package_logger = logging.getLogger("at2_rag")

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command that is imported when it is needed.

    Attributes:
        help: The line shown in the group's list of commands.
        target: Where the command is, as "module:attribute"; None for one that a plug-in brings.
        extra: The extra of at2-rag that installs what the command needs; None for none.
    """

    help: str
    target: str | None = None
    extra: str | None = None


class CommandError(click.ClickException):
    """An error shown as one line."""

    def format_message(self) -> str:
        """Return the message with its line breaks made spaces."""
        return " ".join(line.strip() for line in self.message.splitlines() if line.strip())


class LazyGroup(click.Group):
    """A group of commands of which some are imported on use, and some come from plug-ins.

    Args:
        lazy: Commands by name, imported on use.
        plugins: Entry-point group whose entries are further commands; a name in `lazy` that has
            no target gets it from there.
        **attributes: Those of `click.Group`.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, LazyCommand] | None = None,
        plugins: str | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.lazy = dict(lazy or {})
        self.plugins = plugins

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in alphabetical order."""
        return sorted({*super().list_commands(ctx), *self.lazy, *self._entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, imported now if it is a lazy one.

        Raises:
            CommandError: If it can't be imported.
        """
        if command := super().get_command(ctx, cmd_name):
            return command
        known = self.lazy.get(cmd_name)
        if known is not None and known.target is not None:
            entry = EntryPoint(cmd_name, known.target, "")
        elif (found := self._entry_points().get(cmd_name)) is not None:
            entry = found
        elif known is None:
            return None
        else:
            raise CommandError(f"the command '{cmd_name}' is not installed; {_remedy(known, None)}")
        try:
            command = entry.load()
        except Exception as error:
            if _is_verbose(ctx):
                click.echo(traceback.format_exc(), err=True)
            raise CommandError(
                f"the command '{cmd_name}' can't be loaded from {entry.value} "
                f"({type(error).__name__}: {error}); {_remedy(known, entry)}"
            ) from error
        if not isinstance(command, click.Command):
            raise CommandError(
                f"the command '{cmd_name}' can't be loaded: {entry.value} is a "
                f"{type(command).__name__}, not a click command; {_remedy(known, entry)}"
            )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing the lazy ones."""
        rows = []
        for name in self.list_commands(ctx):
            if command := super().get_command(ctx, name):
                rows.append((name, command.get_short_help_str()))
            elif known := self.lazy.get(name):
                rows.append((name, known.help))
            else:
                rows.append((name, f"Plug-in: {self._entry_points()[name].value}"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever goes wrong in it is shown as one line.

        Raises:
            CommandError: In place of any error that isn't click's own.
        """
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        _package_logger.addHandler(handler)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if _is_verbose(ctx):
                click.echo(traceback.format_exc(), err=True)
            if isinstance(error, AT2Error):
                raise CommandError(str(error)) from error
            raise CommandError(
                f"{type(error).__name__}: {error}; at2-rag -v shows the traceback"
            ) from error
        finally:
            _package_logger.removeHandler(handler)

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self.plugins is None:
            return {}
        # Of two entries of one name, the one found first on the import path is meant.
        return {entry.name: entry for entry in reversed(tuple(entry_points(group=self.plugins)))}


def verbose_option(command: _Command) -> _Command:
    """Add `-v/--verbose` to a command: logs of all levels and tracebacks on stderr."""

    def switch_on(ctx: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
        if verbose:
            ctx.meta[_VERBOSE] = True
            ctx.call_on_close(partial(_package_logger.setLevel, _package_logger.level))
            _package_logger.setLevel(logging.DEBUG)

    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=switch_on,
        help="Show logs, and the traceback of an error.",
    )(command)


def command_without_places(context: click.Context) -> str:
    """Return the command line as it was given, with names of files and folders, but no places.

    Options that the command itself is not given, `-v` among them, are left out.
    """
    parts = ["at2-rag", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not (given and parameter.expose_value):
            continue
        value = context.params.get(name)
        if isinstance(parameter, click.Option) and parameter.is_flag:
            meant = value if parameter.is_bool_flag else value == parameter.flag_value
            names = parameter.opts if meant else parameter.secondary_opts
            parts += [max(names, key=len)] if names else []
            continue
        option = [] if isinstance(parameter, click.Argument) else [max(parameter.opts, key=len)]
        is_path = isinstance(parameter.type, click.Path)
        for one in value if isinstance(value, tuple) else (value,):
            shown = _last_part(one) if is_path else without_place(str(one))
            parts += [*option, shown]
    return shlex.join(parts)


def without_place(value: str) -> str:
    """Return the name of a file or folder that is there, and anything else as it is."""
    try:
        return _last_part(value) if Path(value).expanduser().exists() else value
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a null character
        return value


def _last_part(path: str) -> str:
    try:
        return Path(path).expanduser().resolve().name
    except (OSError, RuntimeError, ValueError):
        return path


def _is_verbose(ctx: click.Context) -> bool:
    return bool(ctx.meta.get(_VERBOSE))


def _remedy(known: LazyCommand | None, entry: EntryPoint | None) -> str:
    if known is not None and known.extra is not None:
        return f'run: pip install "at2-rag[{known.extra}]"'
    if entry is not None and entry.dist is not None and known is None:
        return f"it comes from the package {entry.dist.name}: reinstall or remove that"
    return "reinstall at2-rag"
