"""What the commands of `at2-rag` share: options under headings, plug-ins, errors of one line."""

from __future__ import annotations

import logging
import math
import shlex
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import click

from at2_rag.cli.config import ConfigurableCommand, flag, origin, strength
from at2_rag.errors import AT2Error
from at2_rag.files import last_part, without_folder
from at2_rag.report.terminal import visible

PLUGINS = "at2_rag.commands"
"""Entry-point group in which packages register click commands."""

_EXTRAS = {
    "calibrate": "train",
    "eval": "evals",
    "label": "label",
    "mcp": "mcp",
    "ray": "ray",
    "serve": "server",
    "train": "train",
}
"""Command -> the extra of at2-rag with what it needs."""

_VERBOSE = "at2_rag.verbose"
_package_logger = logging.getLogger("at2_rag")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class CommandError(click.ClickException):
    """An error shown as one line."""

    def format_message(self) -> str:
        """Return the message on one line."""
        return " ".join(line.strip() for line in self.message.splitlines() if line.strip())


class FiniteRange(click.FloatRange):
    """A range of numbers; click takes nan for any range, and infinity for those without an end."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, if it is finite and in the range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class Option(click.Option):
    """An option that the help shows under a heading."""

    def __init__(self, *arguments: Any, heading: str | None = None, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.heading = heading


def headed(heading: str) -> Callable[..., Callable[[_Command], _Command]]:
    """Return `click.option` for options under a heading."""
    return partial(click.option, cls=Option, heading=heading)


class Command(ConfigurableCommand):
    """A command whose options may stand under headings, and may exclude others.

    Args:
        exclusive: Rules of alternatives of which one may be set, each the names of parameters that
            go together. What the command line sets wins over the environment's contrary, and that
            over the file's.
        common: See `ConfigurableCommand`.
    """

    def __init__(
        self, *arguments: Any, exclusive: Sequence[Sequence[Sequence[str]]] = (), **attributes: Any
    ) -> None:
        super().__init__(*arguments, **attributes)
        self._exclusive = exclusive

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, those without one last."""
        sections: dict[str | None, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                sections.setdefault(getattr(parameter, "heading", None), []).append(record)
        others = sections.pop(None, [])
        last = "Other options" if sections else "Options"
        for heading, rows in [*sections.items(), (last, others)]:
            with formatter.section(str(heading)):
                formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, and settle which of contrary options count."""
        rest = super().parse_args(ctx, args)
        for rule in self._exclusive:
            _settle(ctx, rule)
        return rest


def _settle(context: click.Context, rule: Sequence[Sequence[str]]) -> None:
    """Unset what a stronger source overrules."""
    set_names = [[name for name in names if _strength(context, name)] for names in rule]
    set_names = [names for names in set_names if names]
    strongest = max((_strength(context, name) for names in set_names for name in names), default=0)
    winners = [
        names for names in set_names if strongest in [_strength(context, name) for name in names]
    ]
    parameters = {parameter.name: parameter for parameter in context.command.params}
    if len(winners) > 1:
        shown = []
        for name in (name for names in winners for name in names):
            source = origin(context, name)
            shown.append(flag(parameters[name]) + (f" ({source})" if source else ""))
        raise click.UsageError(f"{' and '.join(shown)} can't be used together; pass one.", context)
    for name in (name for names in set_names if names not in winners for name in names):
        context.params[name] = False if getattr(parameters[name], "is_flag", False) else None


def _strength(context: click.Context, name: str) -> int:
    """Return how strong the source of a parameter's value is, 0 where nothing was set."""
    value = context.params.get(name)
    return 0 if value is None or value is False else strength(context, name)


class Group(click.Group):
    """A group whose commands are each a `Command`."""

    command_class = Command


class CommandGroup(Group):
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
            fix = "at2-rag -v shows the traceback"
            extra = _EXTRAS.get(ctx.invoked_subcommand or "")
            if isinstance(error, ModuleNotFoundError) and extra is not None:
                fix = f'run: pip install "at2-rag[{extra}]"'
            raise CommandError(visible(f"{type(error).__name__}: {error}; {fix}")) from error
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
            extra = _EXTRAS.get(entry.name, entry.name)
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


def command_without_folders(context: click.Context) -> str:
    """Return the command line with the names of files and folders, but not where they are.

    For records that are passed on. Options are named wherever they were set: there, in the
    environment or in a file. Those left at their defaults are left out, and so is `-v`.
    """
    parts = ["at2-rag", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        if not parameter.expose_value or not strength(context, name):
            continue
        value = context.params.get(name)
        if isinstance(parameter, click.Option) and parameter.is_flag:
            flags = parameter.opts if value else parameter.secondary_opts
            parts += [max(flags, key=len)] if flags else []  # a file may say that a flag isn't set
            continue
        option = [] if isinstance(parameter, click.Argument) else [flag(parameter)]
        is_path = isinstance(parameter.type, click.Path)
        for one in value if isinstance(value, tuple) else (value,):
            shown = last_part(one) if is_path else without_folder(str(one))
            parts += [*option, shown]
    return shlex.join(parts)
