"""The `at2-rag` command. Importing this, and every `--help`, loads neither torch nor transformers.

Packages add commands in the entry-point group `at2_rag.commands`.
"""

from __future__ import annotations

import click

from at2_rag import __version__
from at2_rag.cli.command_line import CommandGroup, verbose_option
from at2_rag.cli.models import models
from at2_rag.cli.prune import prune
from at2_rag.cli.serve import serve
from at2_rag.cli.states import cache, index
from at2_rag.cli.train import calibrate_command, label_command, train_command


@click.group(
    cls=CommandGroup,
    commands=[cache, calibrate_command, index, label_command, models, prune, serve, train_command],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="at2-rag")
@verbose_option
def main() -> None:
    """Prune retrieved context before it reaches an LLM."""
