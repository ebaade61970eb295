"""Options that several eval commands share."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

files_argument = click.argument("files", nargs=-1, required=True, type=_FILE)
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Judge only the first N items of each source.",
)
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
embedding_model_option = click.option(
    "--embedding-model",
    help="sentence-transformers model of minilm: a folder or a hub id.",
)
train_option = click.option(
    "--train",
    multiple=True,
    type=_FILE,
    help="Training file on which attention heads are chosen. May be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
