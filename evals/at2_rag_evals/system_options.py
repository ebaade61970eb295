"""Options that take names of the systems that evals judge.

Help and errors list the few that people know; `--all` lists the experiments too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from at2_rag_evals.names import SYSTEMS
from at2_rag_evals.request import option

_Command = TypeVar("_Command", bound=Callable[..., Any])

EXPERIMENTS = frozenset(
    {
        "bm25_unstemmed",
        *("at2_joint", "at2_prior", "at2_cosine", "at2_multi_hop"),
        *("at2_adaptive_multi_hop", "at2_adaptive_once", "heads_8", "heads_16"),
    }
)
"""Systems that help and errors leave out."""


class SystemName(click.types.StringParamType):
    """The name of one of some systems; an error lists those that people know."""

    name = "name"

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, if there is such a system."""
        if value not in self._names:
            self.fail(f"{value!r} is none of {_known(self._names)}; --all lists more", param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so."""
        return [CompletionItem(name) for name in self._names if name.startswith(incomplete)]


def system_option(
    flag: str, names: Collection[str], default: Collection[str], *, help: str, but: str = ""
) -> Any:
    """Return a dataclass field that takes names of systems; `{}` in the help becomes those known.

    `but` says what else the help has to say about the default.
    """
    others = [name for name in names if name not in {*default, *EXPERIMENTS}]
    shown = (f"all of these but {', '.join(others)}" if others else "all of these") + but
    return option(
        flag,
        default=tuple(default),
        multiple=True,
        type=SystemName(names),
        metavar="NAME",
        show_default=shown if default else None,
        help=f"{help}: {_known(names)}, or an experiment of --all. May be repeated.",
        heading="What is judged",
    )


def _known(names: Collection[str]) -> str:
    return ", ".join(name for name in names if name not in EXPERIMENTS)


def all_option(names: Collection[str], default: Collection[str]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds `--all`, which lists every system."""

    def show(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
        if not wanted or context.resilient_parsing:
            return
        width = max(map(len, names))
        for name, mark, what in (
            ("Name", "By default", "What it is"),
            *((name, "yes" if name in default else "", SYSTEMS[name].what) for name in names),
        ):
            click.echo(f"{name:{width}}  {mark:10}  {what}")
        context.exit()

    return click.option(
        "--all",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="List every system that can be judged, experiments too, and exit.",
    )
