"""Options from the environment and from a TOML file.

The command line wins over the environment, that over the file, and that over the defaults. A
command's options are set by its table of the file (`[eval.qa]`) and by variables with its name
(`AT2_RAG_EVAL_QA_TOP_K`). Commands that prune, or load a model to prune with, are *common*: keys
above the tables and plain variables (`AT2_RAG_TOP_K`) set their options as well, unless the
command's table or variable does. A long name means one thing in all of these. The file is the one
that `--config` or `AT2_RAG_CONFIG` names, or else the user's; none is looked for in the current
folder, which may be someone else's.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import click
import platformdirs
from click.core import ParameterSource

from at2_rag.errors import brief

PREFIX = "AT2_RAG_"
"""How the variables of options begin."""

_KEYS = "at2_rag.config_keys"


class _Key(NamedTuple):
    """Which key of a file set an option, and whether it is in the command's table."""

    shown: str
    is_in_table: bool


class ConfigurableCommand(click.Command):
    """A command whose options may be set in the environment and in a file.

    Args:
        common: Whether plain variables and keys above the tables set its options as well. For
            commands in which a long name means what it means in `prune`.
    """

    def __init__(self, *arguments: Any, common: bool = False, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.common = common
        self.params.append(config_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; an error says which variable or file a bad value is from."""
        for parameter in self.params:
            if isinstance(parameter, click.Option) and _may_be_preset(parameter):
                parameter.envvar = _variables(ctx, parameter)
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = None if error.param is None else error.param.name
            if name and (source := origin(ctx, name)):
                vars(error)["message"] = f"{error.message} ({source})"  # it has no setter
            raise


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
        help="TOML file of options by their long names, which variables can set as well.",
    )


def user_config_file() -> Path | None:
    """Return the user's file, which may not exist; None for a user without a home folder."""
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
    if source is ParameterSource.ENVIRONMENT:
        return f"from {_set_variable(_parameter(context, name))}"
    if source is ParameterSource.DEFAULT_MAP and name in context.meta.get(_KEYS, {}):
        return f"from {context.meta[_KEYS][name].shown}"
    return ""


def strength(context: click.Context, name: str) -> int:
    """Return how much the source of a parameter's value counts.

    From 1 on: a key above the tables, one in the command's table, a plain variable, one with the
    command's name, the command line. 0 for defaults.
    """
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        return 5
    if source is ParameterSource.ENVIRONMENT:
        parameter = _parameter(context, name)
        return 4 if _set_variable(parameter) == _all_variables(parameter)[0] else 3
    if source is ParameterSource.DEFAULT_MAP:
        key = context.meta.get(_KEYS, {}).get(name)
        return 2 if key is None or key.is_in_table else 1
    return 0


def _key(parameter: click.Parameter) -> str:
    return flag(parameter).lstrip("-").replace("-", "_")


def _may_be_preset(option: click.Option) -> bool:
    """Tell whether an option neither does something else than its command nor confirms it."""
    return not (option.is_eager or option.prompt)


def _command_names(context: click.Context) -> list[str]:
    """Return the names that lead from the root to a context's command, without the root's."""
    names: list[str] = []
    while context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return names


def _variables(context: click.Context, option: click.Option) -> list[str]:
    """Return the variables that set an option, the one with the command's name first."""
    key, names = _key(option).upper(), _command_names(context)
    variables = ["_".join([*names, key]).replace("-", "_").upper()]
    if names and _is_common(context.command):
        variables.append(key)
    return [PREFIX + variable for variable in variables]


def _parameter(context: click.Context, name: str) -> click.Parameter:
    return next(each for each in context.command.params if each.name == name)


def _set_variable(parameter: click.Parameter) -> str:
    return next(each for each in _all_variables(parameter) if os.environ.get(each))


def _all_variables(parameter: click.Parameter) -> list[str]:
    variables = parameter.envvar or ()
    return [variables] if isinstance(variables, str) else list(variables)


def _is_common(command: click.Command | None) -> bool:
    return isinstance(command, ConfigurableCommand) and command.common


def _read(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Make a file's values the defaults of the other options."""
    if path is None:
        user_path = user_config_file()
        path = user_path if user_path is not None and os.path.isfile(user_path) else None
    if path is None or context.resilient_parsing:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{path} can't be read as TOML: {error}") from error
    defaults, keys = dict(context.default_map or {}), {}
    for parameter, value, key in _defaults(document, path, context):
        defaults[str(parameter.name)] = value
        keys[str(parameter.name)] = key
    context.default_map, context.meta[_KEYS] = defaults, keys


def _defaults(
    document: Mapping[str, Any], path: Path, context: click.Context
) -> Iterator[tuple[click.Parameter, Any, _Key]]:
    """Yield what a document says for a command; the last that is said of a parameter counts."""
    root = context.find_root()
    settable = _settable(context.command)
    table, command, title = document, root.command, ""
    for name in [*_command_names(context), ""]:
        is_leaf = not isinstance(command, click.Group)
        takes = is_leaf or (not title and _is_common(context.command))
        for key, value in _pairs(table, path, title):
            dotted = f"{title}.{key}".lstrip(".")
            if isinstance(value, dict):
                _check_table(dotted, command, path, root)
            elif takes and (parameter := settable.get(_underscored(key))):
                checked = _checked(parameter, value, f"{path}: {dotted}")
                yield parameter, checked, _Key(f"{dotted} in {path}", is_leaf)
            else:
                _check_key(key, title, command, path, context)
        if name and isinstance(command, click.Group):
            table, title = table.get(name, {}), f"{title}.{name}".lstrip(".")
            command = command.get_command(root, name) or context.command


def _pairs(table: Mapping[str, Any], path: Path, title: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a table; none may be spelt with a dash and an underscore."""
    spellings: dict[str, str] = {}
    for key, value in table.items():
        other = spellings.setdefault(_underscored(key), key)
        if other != key:
            raise click.UsageError(
                f"{path} has the keys {other!r} and {key!r}{_within(title)}, which are one option; "
                "keep one"
            )
        yield key, value


def _underscored(key: str) -> str:
    return key.replace("-", "_")


def _within(title: str) -> str:
    return f" in [{title}]" if title else ""


def _settable(command: click.Command | None) -> dict[str, click.Parameter]:
    """Return key -> parameter, of what a file may set: options, and files as `files`."""
    if not isinstance(command, ConfigurableCommand):
        return {}
    return {
        _key(parameter): parameter
        for parameter in command.params
        if (
            _may_be_preset(parameter)
            if isinstance(parameter, click.Option)
            else parameter.nargs == -1
        )
    }


def _leaves(
    command: click.Command | None, title: str, root: click.Context
) -> Iterator[tuple[str, click.Command]]:
    """Yield the commands of a group and of its groups, each with the name of its table."""
    if isinstance(command, click.Group):
        for name in command.list_commands(root):
            yield from _leaves(command.get_command(root, name), f"{title}.{name}".lstrip("."), root)
    elif command is not None:
        yield title, command


def _check_table(title: str, command: click.Command, path: Path, root: click.Context) -> None:
    """Refuse a table that isn't a command's or a group's."""
    parent, _, name = title.rpartition(".")
    commands = command.list_commands(root) if isinstance(command, click.Group) else []
    if name not in commands:
        words = " ".join([root.command_path, *parent.split(".")]).strip()
        listed = f"`{words} --help` lists the commands" if commands else f"`{words}` has none"
        raise click.UsageError(
            f"{path} has the table [{title}], which is unknown{_closest(name, commands)}; {listed}"
        )


def _check_key(
    key: str, title: str, command: click.Command, path: Path, context: click.Context
) -> None:
    """Refuse a key, unless it is above the tables and meant for another common command."""
    root = context.find_root()
    what = f"{path} has the key {key!r}{_within(title)}"
    if not isinstance(command, click.Group):
        raise click.UsageError(
            f"{what}, which is unknown{_closest(_underscored(key), _settable(command))}; "
            f"`{context.command_path} --help` lists the options"
        )
    leaves = dict(_leaves(command, title, root))
    common = {name: _settable(each) for name, each in leaves.items() if _is_common(each)}
    known = [] if title else [option for options in common.values() for option in options]
    if _underscored(key) in known:
        return
    holders = [name for name, each in leaves.items() if _underscored(key) in _settable(each)]
    if holders:
        tables = " or ".join(f"[{name}]" for name in holders)
        raise click.UsageError(
            f"{what}, where it sets nothing; put it into the table of its command: {tables}"
        )
    listed = "above the tables are options of " + ", ".join(common).replace(".", " ")
    listed = f"[{title}] holds tables alone" if title else f"{listed}, which their --help lists"
    raise click.UsageError(
        f"{what}, which is unknown{_closest(_underscored(key), known)}; {listed}"
    )


def _closest(name: str, known: Iterable[str]) -> str:
    """Return a suggestion, empty if nothing known is alike."""
    matches = get_close_matches(name, known, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _checked(parameter: click.Parameter, value: Any, key: str) -> Any:
    """Return a value, a list where there may be several; click would take 1.5 for an integer."""
    kinds, one, several = _kinds(parameter.type)
    may_repeat = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    is_list = may_repeat or parameter.nargs > 1
    items = value if is_list and isinstance(value, list) else [value]
    if not all(type(item) in kinds for item in items):
        wanted = f"a list of {several}" if is_list else one
        raise click.UsageError(f"{key} is {brief(value)}; pass {wanted}")
    if isinstance(parameter.type, click.Path):
        items = [_in_home(item, key) for item in items]  # as a shell does
    return items if is_list else items[0]


def _in_home(path: str, key: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise click.UsageError(
            f"{key} is {brief(path)}, and there is no such home folder; write the folder's path"
        ) from error


def _kinds(kind: click.ParamType[Any]) -> tuple[tuple[type, ...], str, str]:
    """Return the types of TOML values that an option takes, and what one and several are called."""
    if isinstance(kind, click.types.BoolParamType):
        return (bool,), "true or false", "true and false"
    if isinstance(kind, click.types.IntParamType):
        return (int,), "an integer", "integers"
    if isinstance(kind, click.types.FloatParamType):
        return (int, float), "a number", "numbers"
    return (str,), "a quoted string", "quoted strings"
