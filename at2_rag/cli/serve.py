"""`at2-rag serve`: the HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from at2_rag.cli.command_line import Command, FiniteRange, headed, verbose_option
from at2_rag.cli.options import (
    chunk_cache_option,
    headed_limits,
    model_options,
    prune_options,
    taken_options,
)
from at2_rag.options import PruneOptions
from at2_rag.progress import announced
from at2_rag.server.keys import read_keys
from at2_rag.server.settings import ServerSettings, numbers
from at2_rag.text.tokens import resolve_token_counter

_Command = TypeVar("_Command", bound=Callable[..., Any])

headed_server = headed("Where, and for whom")
_bounds = headed("Bounds of requests")


def _bound_options(command: _Command) -> _Command:
    """Add an option for each number of the settings."""
    for number in reversed(numbers()):
        least = number.metadata["least"]
        whole = isinstance(number.default, int)
        command = _bounds(
            f"--{number.name.replace('_', '-')}",
            type=click.IntRange(min=least) if whole else FiniteRange(min=least),
            default=number.default,
            show_default=True,
            help=number.metadata["help"],
        )(command)
    return command


def address_options(command: _Command) -> _Command:
    """Add the options of the address to listen on."""
    command = headed_server(
        "--port",
        type=click.IntRange(0, 65535),
        default=8080,
        show_default=True,
        help="Port; 0 for any.",
    )(command)
    return headed_server(
        "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
    )(command)


_SERVICE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    headed_server(
        "--api-key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Keys, one a line, of which each request has to carry one. Those in the variable "
        "AT2_RAG_API_KEYS, separated by commas, count too.  [default: no key is needed]",
    ),
    headed_server(
        "--model-name",
        "model_names",
        multiple=True,
        help="Another name that requests may give to the model. May be repeated.",
    ),
    headed_server("--trace-text", is_flag=True, help="Write questions and documents into traces."),
    _bound_options,
    prune_options(PruneOptions),
    headed_limits(
        "--token-counter",
        help="Count tokens as this OpenAI model or tiktoken encoding does.  "
        "[default: the scoring model's tokenizer]",
    ),
    model_options,
    chunk_cache_option,
)


def service_options(command: _Command) -> _Command:
    """Add the options of what is served, for whom, and within which bounds."""
    for option in reversed(_SERVICE_OPTIONS):
        command = option(command)
    return command


def taken_service(values: dict[str, Any]) -> tuple[ServerSettings, dict[str, Any]]:
    """Take the values of `service_options` out of a command's other arguments.

    Returns:
        The settings, and the other keyword arguments of `load_service`; its `head_weights` are as
        on the command line.
    """
    options = taken_options(PruneOptions, values)
    settings = ServerSettings(
        api_keys=read_keys(values.pop("api_key_file")),
        model_names=values.pop("model_names"),
        trace_text=values.pop("trace_text"),
        **{number.name: values.pop(number.name) for number in numbers()},
    )
    if values["token_counter"] is not None:
        resolve_token_counter(values["token_counter"])  # refused now, not once a model is loaded
    return settings, {"options": options, **values}


def _print_description(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from at2_rag.server.app import describe_api

        click.echo(json.dumps(describe_api(), indent=2))
        context.exit()


@click.command(cls=Command, common=True, short_help="Serve rerank clients over HTTP.")
@address_options
@service_options
@headed_server(
    "--openapi",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_description,
    help="Print the API's description as OpenAPI, and exit.",
)
@verbose_option
def serve(host: str, port: int, **values: Any) -> None:
    """Serve rerank clients over HTTP: those of Cohere, Jina, vLLM, TEI and Voyage.

    They post to /v1/rerank, /v2/rerank or /rerank; /v1/prune, /v1/attribute and /v1/index are
    at2-rag's. The page at / shows what pruning does, /metrics what the server does. What to keep
    holds for /v1/prune where a request doesn't say otherwise.

    SIGTERM lets requests finish; a second one ends them. Chunk states are kept in memory, or in the
    folder that --chunk-cache names.
    """
    settings, loading = taken_service(values)
    with announced("Loading the model"):  # importing torch takes seconds
        from at2_rag.readout.shipped import named_or_folder
        from at2_rag.server.process import serve as serve_requests
        from at2_rag.server.service import load_service

        loading["head_weights"] = named_or_folder(loading["head_weights"])
        service = load_service(settings, **loading)
    serve_requests(service, host=host, port=port)
