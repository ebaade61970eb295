"""`at2-rag prune`: keeps the relevant chunks of a file, a folder or standard input."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from at2_rag.cli.command_line import Command, FiniteRange, headed, verbose_option
from at2_rag.cli.options import (
    chosen_columns,
    chunk_cache_option,
    default_chunk_cache,
    headed_input,
    headed_keeping,
    headed_limits,
    headed_reading,
    input_options,
    load_pruner,
    model_options,
    prune_options,
    taken_options,
)
from at2_rag.cli.passages import MOST_BYTES, Columns, Format, parse_passages, read_passages
from at2_rag.cli.table import print_result
from at2_rag.errors import StorageError
from at2_rag.files import check_writable, write_whole
from at2_rag.options import PruneOptions
from at2_rag.progress import announced
from at2_rag.report.terminal import visible
from at2_rag.text.chunks import DEFAULT_ELLIPSIS, DEFAULT_SEPARATOR, Chunk, replace_surrogates

if TYPE_CHECKING:
    from at2_rag.results import PruneResult, ScoredChunk
    from at2_rag.states.store import ChunkCache
    from at2_rag.text.chunks import ChunkLike

_output = headed("Output")

_FORMS = ("as_json", "as_context", "as_kept", "as_view")
_EXCLUSIVE = (
    [(form,) for form in _FORMS],
    (("tokens_per_second", "price"), _FORMS),
    (("chunk_cache",), ("no_chunk_cache",)),
    (("keep_duplicates",), ("max_overlap",)),
)


@click.command(
    cls=Command,
    common=True,
    exclusive=_EXCLUSIVE,
    short_help="Keep the chunks relevant to a question.",
)
@click.argument(
    "source",
    metavar="[INPUT]",
    required=False,
    type=click.Path(exists=True, allow_dash=True),
)
@headed_input("-q", "--query", required=True, help="The question.")
@input_options
@prune_options(PruneOptions)
@headed_limits(
    "--token-counter",
    help="Count tokens as this OpenAI model or tiktoken encoding does.  "
    "[default: the scoring model's tokenizer]",
)
@headed_keeping("--keep-duplicates", is_flag=True, help="Keep chunks whatever their overlap.")
@model_options
@chunk_cache_option
@headed_reading(
    "--no-chunk-cache", is_flag=True, help="Read every chunk anew, whatever at2-rag index has kept."
)
@_output(
    "--separator",
    metavar="TEXT",
    default=DEFAULT_SEPARATOR,
    help="Text between two chunks of the context.  [default: an empty line]",
)
@_output(
    "--ellipsis",
    metavar="TEXT",
    default=DEFAULT_ELLIPSIS,
    show_default=True,
    help="Text for what is left out between two sentences of a chunk.",
)
@_output(
    "--tokens-per-second",
    type=FiniteRange(min=0, min_open=True),
    help="How fast the generator reads; shows the time it is spared.",
)
@_output(
    "--price",
    type=FiniteRange(min=0),
    help="What the generator charges for a million tokens; shows the money saved.",
)
@_output("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@_output(
    "--context", "as_context", is_flag=True, help="Print the kept context alone, for a prompt."
)
@_output(
    "--kept",
    "as_kept",
    is_flag=True,
    help="Print the kept chunks alone as JSON Lines, with all their keys.",
)
@_output(
    "--show",
    "as_view",
    is_flag=True,
    help="Print every passage, with what was dropped or cut struck through.",
)
@_output(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write this to a file, as a page.",
)
@verbose_option
def prune(
    source: str | None,
    query: str,
    keep_duplicates: bool,
    form: Format | None,
    text_column: str,
    title_column: str,
    chunk_cache: Path | None,
    no_chunk_cache: bool,
    tokens_per_second: float | None,
    price: float | None,
    as_json: bool,
    as_context: bool,
    as_kept: bool,
    as_view: bool,
    page: Path | None,
    **settings: Any,
) -> None:
    """Keep the chunks of INPUT that are relevant to a question.

    INPUT is a JSON Lines file (one chunk a line: a string, or an object with text and optionally
    title, id, metadata and retrieval_score), a JSON file (a list of those), CSV or TSV with a row
    of column names (one chunk a row), a text file (one chunk a paragraph, or some 150 words of a
    longer one, such as a log), a folder of text files (one chunk a file), or - for standard input,
    the default. Files may be gzipped. At most 128 MiB are read, unpacked.

    All limits must hold. Without any, calibrated head weights (like the default ones) keep chunks
    that are at least a twentieth as likely to be relevant as the best one, and never fewer than the
    best 35 %; others need a limit.

    Chunk states that `at2-rag index` kept are used, and those of new chunks are kept as well, as
    with --chunk-cache.
    """
    options = taken_options(PruneOptions, settings)
    if keep_duplicates:
        options = options.override(max_overlap=None)
    if not query.strip():
        raise click.UsageError("The question given with --query is blank.")
    rates = {"tokens_per_second": tokens_per_second, "price_per_million": price}
    has_rates = any(rate is not None for rate in rates.values())
    _check_page(page)
    chunks = _read(source, form, chosen_columns(text_column, title_column))
    with announced("Loading the model"):  # importing torch takes seconds
        cache = None if no_chunk_cache else _chunk_cache(chunk_cache)
        pruner = load_pruner(options=options, chunk_cache=cache, **settings)
    # Everything but the result goes to standard error, so that the output can be piped on.
    with Console(stderr=True).status(f"Scoring {len(chunks):,} chunks"):
        result = pruner.prune(query, chunks)
    if page is not None:
        write_whole(page, result.to_html().encode())
    if as_json:
        click.echo(result.to_json())
    elif as_context or as_kept:
        _print_kept(result, as_context=as_context)
    elif as_view:
        result.show()
    else:
        print_result(
            result,
            Console(),
            original_order=options.order == "original",
            break_even=result.break_even(**rates) if has_rates else None,
        )


def _check_page(page: Path | None) -> None:
    """Refuse at once what can't become a page."""
    if page is None:
        return
    if page.exists() and not page.is_file():
        raise click.UsageError(f"--html {page} is no file; pass the name of a file.")
    check_writable(page.parent)


def _print_kept(result: PruneResult, *, as_context: bool) -> None:
    """Print what is kept, as a context or as JSON Lines, and notes to standard error."""
    for note in result.notes if result.kept else ():  # if nothing is kept they are logged
        click.echo(visible(note), err=True)
    if not as_context:
        lines = [json.dumps(_as_it_came(chunk), allow_nan=False) for chunk in result.kept]
        for line in lines:  # none is written if one of them can't be
            click.echo(line)
        return
    context = replace_surrogates(result.context)
    # To the letter into a file or a pipe; a terminal would obey what a chunk says to it.
    context = visible(context) if sys.stdout.isatty() else context
    click.echo(context, nl=bool(result.kept), color=True)  # else it removes styles


def _as_it_came(scored: ScoredChunk) -> Any:
    """Return the caller's own chunk with its entries, of a trimmed one with what is kept."""
    chunk = scored.chunk
    if isinstance(chunk, Chunk):  # of a folder or of CSV
        entries = {each.name: getattr(chunk, each.name) for each in fields(Chunk)}
        chunk = {name: value for name, value in entries.items() if value not in (None, {})}
    if scored.spans is None:
        return chunk
    return scored.kept_text if isinstance(chunk, str) else {**chunk, "text": scored.kept_text}


def _read(source: str | None, form: Format | None, columns: Columns) -> list[ChunkLike]:
    if source is None and sys.stdin.isatty():
        raise click.UsageError("No INPUT was given, and standard input is a terminal.")
    if source in (None, "-"):
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
        return parse_passages(data, "<stdin>", format=form, columns=columns)
    return read_passages(Path(source), format=form, columns=columns)


def _chunk_cache(folder: Path | None) -> ChunkCache | None:
    """Return the cache in a folder, or the one that `at2-rag index` made; None if it made none."""
    if folder is None:
        try:
            folder = default_chunk_cache()
        except StorageError:  # without a home there is none
            return None
        if not os.path.isdir(folder):
            return None

    from at2_rag.states.store import ChunkCache

    return ChunkCache(folder, max_memory_bytes=0)
