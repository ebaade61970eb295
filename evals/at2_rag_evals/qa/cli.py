"""`at2-rag eval qa` and `compare`: loaded with the other evals' commands, so it imports little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from at2_rag.cli.command_line import Command, verbose_option
from at2_rag_evals.qa.request import DEFAULT_PRUNERS, MORE_PRUNERS, QARequest
from at2_rag_evals.request import json_option, request_options
from at2_rag_evals.system_options import all_option

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(cls=Command)
@request_options(QARequest)
@all_option(DEFAULT_PRUNERS + MORE_PRUNERS, DEFAULT_PRUNERS)
@json_option
@verbose_option
def qa(as_json: bool, **values: Any) -> None:
    """Let a generator answer the questions of FILES from what pruners keep.

    Without FILES the questions are those of a small set that comes with the evals. Each line of
    FILES (.jsonl or .jsonl.gz) is an object with id, question, answers and chunks, as for
    `ranking`. Reports accuracy, tokens and seconds, with paired bootstrap intervals.
    """
    from at2_rag_evals.qa.command import run_qa

    run_qa(QARequest(**values), as_json=as_json)


@click.command(cls=Command)
@click.argument("first", metavar="A", type=_FOLDER)
@click.argument("second", metavar="B", type=_FOLDER)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@json_option
@verbose_option
def compare(first: Path, second: Path, seed: int, as_json: bool) -> None:
    """Show what differs between two output folders of `qa`, A minus B.

    Cells of the same generator, pruner, budget and order are compared on the items that both have,
    with paired bootstrap intervals; where each run has one generator, across those two.
    """
    from at2_rag_evals.qa.compare import run_compare

    run_compare(first, second, seed=seed, as_json=as_json)
