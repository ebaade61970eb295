"""`at2-rag index` keeps chunk states ahead of questions; `at2-rag cache` shows and removes them."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from at2_rag.cli.command_line import Command, FiniteRange, Group, headed, verbose_option
from at2_rag.cli.options import (
    chosen_columns,
    chunk_cache_option,
    default_chunk_cache,
    input_options,
    load_pruner,
    model_options,
)
from at2_rag.cli.passages import Format, read_passages
from at2_rag.progress import StepProgress, announced

if TYPE_CHECKING:
    from at2_rag.states.files import StateCounts

max_gb_option = headed("What is kept")(
    "--max-gb",
    type=FiniteRange(min=0, min_open=True),
    help="Most gigabytes to keep there, from now on; the least recently used states go first.  "
    "[default: as before, at first 21.5]",
)

_GIGABYTE = 1e9
_MOST_GIGABYTES = 1e9  # a folder's bound in bytes is below 2**63


@click.command(cls=Command, common=True, short_help="Read chunks ahead of any question.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@input_options
@chunk_cache_option
@max_gb_option
@model_options
@verbose_option
def index(
    files: tuple[Path, ...],
    chunk_cache: Path | None,
    max_gb: float | None,
    form: Format | None,
    text_column: str,
    title_column: str,
    **loading: Any,
) -> None:
    """Read the chunks of FILES ahead of any question, and keep their states.

    FILES are files or folders of chunks as `at2-rag prune` reads them. Later questions about these
    chunks then read little but the question, in `at2-rag prune` and in a pruner with
    chunk_cache="FOLDER". Chunks whose states are kept already are not read again, so
    that an interrupted run continues.
    """
    most = max_bytes(max_gb)
    columns = chosen_columns(text_column, title_column)
    passages = (read_passages(path, format=form, columns=columns) for path in files)
    chunks = list(chain.from_iterable(passages))
    folder = chunk_cache or default_chunk_cache()
    with announced("Loading the model"):  # importing torch takes seconds
        from at2_rag.states.store import ChunkCache

        states = ChunkCache(folder, max_memory_bytes=0, max_disk_bytes=most)
        pruner = load_pruner(chunk_cache=states, **loading)
    with StepProgress() as progress:
        progress("chunks", 0, len(chunks))
        pruner.index(chunks, progress=lambda done: progress("chunks", done, len(chunks)))
    show_indexed(len(chunks), states.counts, folder)


def max_bytes(gigabytes: float | None) -> int | None:
    """Return the bound that --max-gb sets; None for none."""
    if gigabytes is not None and gigabytes >= _MOST_GIGABYTES:
        raise click.UsageError(
            f"--max-gb is {gigabytes}; pass a number below {_MOST_GIGABYTES:.0e}"
        )
    return None if gigabytes is None else int(gigabytes * _GIGABYTE)


def show_indexed(chunks: int, counts: StateCounts, folder: Path) -> None:
    """Say how many chunks were read into a folder, and what couldn't be kept there."""
    from at2_rag.states.files import StateFiles

    size = StateFiles(folder).size()
    click.echo(
        f"{chunks:,} chunks: {counts.misses:,} states made now, {counts.disk_hits:,} known; "
        f"{size.states:,} states, {size.nbytes / _GIGABYTE:.3g} GB in {folder}"
    )
    if counts.unwritten:
        raise click.ClickException(
            f"{counts.unwritten:,} states could not be written; free some space or pass another "
            "--chunk-cache"
        )
    if counts.evicted or counts.too_large:
        Console(stderr=True).print(
            f"Not all states fit ({counts.evicted:,} were removed to keep the bound, "
            f"{counts.too_large:,} exceed it by themselves); pass --max-gb to keep more.",
            style="yellow",
            highlight=False,
        )


@click.group(cls=Group)
def cache() -> None:
    """Show or remove the chunk states that are kept on disk."""


@cache.command(common=True)
@chunk_cache_option
@verbose_option
def info(chunk_cache: Path | None) -> None:
    """Show how many chunk states are kept, where, and how much space they may take."""
    from at2_rag.states.files import StateFiles

    folder = chunk_cache or default_chunk_cache()
    if not os.path.isdir(folder):
        click.echo(f"0 states, 0 GB in {folder}")
        return
    files = StateFiles(folder)
    size = files.size()
    click.echo(
        f"{size.states:,} states, {size.nbytes / _GIGABYTE:.3g} of at most "
        f"{files.max_bytes / _GIGABYTE:.3g} GB in {folder}"
    )


@cache.command(common=True)
@chunk_cache_option
@click.confirmation_option("--yes", prompt="Remove all chunk states that are kept?")
@verbose_option
def clear(chunk_cache: Path | None) -> None:
    """Remove all chunk states; nothing else in the folder is touched.

    `at2-rag prune` then keeps none until `at2-rag index` or --chunk-cache is used again.
    """
    from at2_rag.states.files import StateFiles

    folder = chunk_cache or default_chunk_cache()
    removed = StateFiles(folder).clear() if os.path.isdir(folder) else 0
    click.echo(f"{removed:,} states removed from {folder}")
