"""What the commands of `at2-rag` share: plug-ins, `-v`, errors of one line."""

from __future__ import annotations

import logging
import shlex
import traceback
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from at2_rag.errors import AT2Error
from at2_rag.files import last_part, without_folder
from at2_rag.report.terminal import visible

PLUGINS = "at2_rag.commands"
"""Entry-point group in which packages register click commands."""

_VERBOSE = "at2_rag.verbose"
_package_logger = logging.getLogger("at2_rag")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class CommandError(click.ClickException):
    """An error shown as one line."""

    def format_message(self) -> str:
        """Return the message on one line."""
        return " ".join(line.strip() for line in self.message.splitlines() if line.strip())


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class CommandGroup(click.Group):
    """A group of commands, with those of plug-ins, that shows each error as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in alphabetical order."""
        return sorted({*super().list_commands(ctx), *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, or None; a plug-in is imported now."""
        command = super().get_command(ctx, cmd_name)
        if command is None and (entry := _plugins().get(cmd_name)):
            command = _plugin_command(entry)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; any error that isn't click's becomes a `CommandError`."""
        handler = logging.StreamHandler()
        handler.setFormatter(_VisibleFormatter("%(levelname)s: %(message)s"))
        _package_logger.addHandler(handler)
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = visible(error.message)  # it has no setter
            raise
        except (click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get(_VERBOSE):
                click.echo(visible(traceback.format_exc()), err=True)
            if isinstance(error, AT2Error):
                raise CommandError(visible(str(error))) from error
            raise CommandError(
                visible(f"{type(error).__name__}: {error}; at2-rag -v shows the traceback")
            ) from error
        finally:
            _package_logger.removeHandler(handler)


def _plugins() -> dict[str, EntryPoint]:
    # Of two entries of one name the first on the import path counts.
    return {entry.name: entry for entry in reversed(tuple(entry_points(group=PLUGINS)))}


def _plugin_command(entry: EntryPoint) -> click.Command:
    """Import a plug-in's command; if it can't be, return one that says so when it runs."""
    try:
        command = entry.load()
        if not isinstance(command, click.Command):
            raise TypeError(f"it is a {type(command).__name__}, not a click command")
    except Exception as error:
        package = "at2-rag" if entry.dist is None else entry.dist.name
        fix = f"reinstall or remove the package {package}"
        if package == "at2-rag":
            extra = {"eval": "evals"}.get(entry.name, entry.name)
            fix = f'run: pip install "at2-rag[{extra}]"'
        failure = AT2Error(
            f"the command '{entry.name}' can't be loaded from {entry.value} "
            f"({type(error).__name__}: {error}); {fix}"
        )
        failure.__cause__ = error

        def fail() -> None:
            raise failure

        return click.Command(
            entry.name,
            callback=fail,
            add_help_option=False,
            short_help="(can't be loaded)",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )
    return command


def verbose_option(command: _Command) -> _Command:
    """Add `-v/--verbose` to a command: logs of all levels and tracebacks on standard error."""

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
    """Return the command line with the names of files and folders, but not where they are.

    For records that are passed on. Options left at their defaults are left out, and so is `-v`.
    """
    parts = ["at2-rag", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        if not parameter.expose_value or (
            context.get_parameter_source(name) is not ParameterSource.COMMANDLINE
        ):
            continue
        value = context.params.get(name)
        if isinstance(parameter, click.Option) and parameter.is_flag:
            parts.append(max(parameter.opts if value else parameter.secondary_opts, key=len))
            continue
        option = [] if isinstance(parameter, click.Argument) else [max(parameter.opts, key=len)]
        is_path = isinstance(parameter.type, click.Path)
        for one in value if isinstance(value, tuple) else (value,):
            shown = last_part(one) if is_path else without_folder(str(one))
            parts += [*option, shown]
    return shlex.join(parts)
