"""The options of commands that load a pruner, and the pruner they ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from at2_rag.text.tokens import resolve_token_counter

if TYPE_CHECKING:
    from at2_rag.pruner import AT2Pruner

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MODEL_OPTIONS = (
    click.option(
        "--model",
        help="Scoring model: a known name, a folder or a hub id.  [default: smollm2-135m-instruct]",
    ),
    click.option("--revision", help="Revision of a model from the hub."),
    click.option(
        "--head-weights",
        help="'best', 'balanced' or 'fast' (fewer layers, lower quality) or 'joint', which come "
        "with at2-rag for its default model; 'uniform', the mean of all heads, for any model; or a "
        "folder that at2-rag train wrote.  [default: 'best', or 'joint' for joint reading]",
    ),
    click.option(
        "--reading",
        type=click.Choice(["independent", "joint"]),
        help="Read each chunk by itself, or all in one prompt.  "
        "[default: what the head weights are for]",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help="Type of the model's numbers.  [default: bfloat16 where the device is fast at it]",
    ),
    click.option(
        "--device", help="Where the model runs.  [default: cuda if there is one, else cpu]"
    ),
)

states_option = click.option(
    "--states",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where chunk states are kept.  [default: chunk_states in at2-rag's cache]",
)


def model_options(command: _Command) -> _Command:
    """Add the options that tell how chunks are scored."""
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


def default_states_folder() -> Path:
    """Return where `at2-rag index` keeps chunk states unless it is told otherwise."""
    from at2_rag.model.hub import cache_dir

    return cache_dir() / "chunk_states"


def load_pruner(
    *, model: str | None, token_counter: str | None = None, **options: Any
) -> AT2Pruner:
    """Load the pruner that was asked for.

    Args:
        model: The scoring model; None for the default one.
        token_counter: Whose tokens are counted; None for the scoring model's.
        **options: Those of `AT2Pruner.from_pretrained`.
    """
    # A counter that can't be had is known at once, before torch is imported.
    counter = None if token_counter is None else resolve_token_counter(token_counter)

    from transformers.utils.logging import disable_progress_bar

    from at2_rag.pruner import AT2Pruner

    disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar for reading local files
    name = () if model is None else (model,)
    return AT2Pruner.from_pretrained(*name, token_counter=counter, **options)
