"""`at2-rag label`; importing this loads neither torch nor a client of a server."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from at2_rag.cli.command_line import (
    Command,
    CommandError,
    FiniteRange,
    headed,
    verbose_option,
)
from at2_rag.progress import announced

_FILE = click.Path(exists=True, dir_okay=False)
_COUNT = click.IntRange(min=1)
_OF_LLM = ("base_url", "key_variable", "reply_tokens", "timeout", "attempts", "parallel")

_teacher, _llm, _written = map(headed, ("A teacher's scores", "An LLM's labels", "What is written"))


@click.command(
    "label",
    cls=Command,
    exclusive=[[("embedding",), ("scores",), ("llm",)]],
    context_settings={"show_default": True},
)
@click.argument("files", nargs=-1, required=True, type=_FILE)
@_written(
    "--output",
    required=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="File to write, gzipped if its name ends in .gz.",
)
@_teacher(
    "--embedding",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Folder of a sentence-transformers model, whose cosines of question and chunk are "
    "written. [default: all-MiniLM-L6-v2, if it is installed]",
)
@_teacher(
    "--scores",
    type=_FILE,
    metavar="FILE",
    help="JSON Lines or CSV with id, index (or chunk_id) and score: what any ranker gave.",
)
@_llm("--llm", metavar="MODEL", help="Model that is asked whether a chunk helps to answer.")
@_llm(
    "--base-url",
    metavar="URL",
    help="Address of a server that speaks OpenAI's chat completions. [default: OPENAI_BASE_URL, "
    "or else OpenAI's]",
)
@_llm(
    "--key-variable",
    metavar="NAME",
    default="OPENAI_API_KEY",
    help="Environment variable that holds the server's key.",
)
@_llm("--reply-tokens", type=_COUNT, default=512, help="Most tokens of a reply, thoughts included.")
@_llm(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=60.0,
    help="Seconds to wait for a reply.",
)
@_llm(
    "--attempts",
    type=_COUNT,
    default=6,
    help="Most times that a prompt is sent, with growing waits.",
)
@_llm("--parallel", type=_COUNT, default=4, help="Prompts that are sent at a time.")
@verbose_option
@click.pass_context
def label_command(context: click.Context, /, **options: Any) -> None:
    """Write questions with labels or teacher scores of their chunks (JSON Lines, may be gzipped).

    A teacher is whatever ranks chunks: its scores are written as `teacher_score`, for `at2-rag
    train --signal teacher`. An LLM says yes or no to each chunk without a label, written as
    `is_gold`, null where it said neither. What it replied is kept beside OUTPUT, so that a run that
    was killed goes on where it stopped.
    """
    for name in _OF_LLM:  # from elsewhere they may be meant for other runs
        passed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if passed and options["llm"] is None:
            raise CommandError(
                f"--{name.replace('_', '-')} is for --llm; leave it out, or pass --llm MODEL"
            )
    with announced("Loading"):
        from at2_rag.training.commands.label import LabelRequest, run_labelling
    run_labelling(LabelRequest(**options))
