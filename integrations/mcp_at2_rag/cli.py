"""`at2-rag mcp`: loaded as a plug-in of the `at2-rag` command, so it imports little."""

from __future__ import annotations

import click

from at2_rag.cli.command_line import Command, verbose_option


@click.command(
    "mcp",
    cls=Command,
    common=True,
    short_help="Serve agents by the Model Context Protocol.",
)
@click.option("--model", help="Scoring model: a known name, a folder or a hub id.")
@click.option("--head-weights", help="Name of shipped head weights, or a folder.")
@click.option("--device", help="Where the model runs.  [default: cuda if there is one, else cpu]")
@click.option(
    "--chunk-cache",
    type=click.Path(file_okay=False, path_type=str),
    metavar="FOLDER",
    help="Keeps what was read of passages.",
)
@verbose_option
def mcp_command(**names: str | None) -> None:
    """Serve agents on standard input and output by the Model Context Protocol.

    Tools: prune_context, rank_passages, cite_answer, expand. The model is loaded by the first call.
    """
    from mcp_at2_rag import make_server

    make_server(**names).run()
