"""`at2-rag ray`: loaded as a plug-in of the `at2-rag` command, so it imports little."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from at2_rag.cli.command_line import FiniteRange, Group, headed, verbose_option
from at2_rag.cli.options import (
    chosen_columns,
    chunk_cache_option,
    default_chunk_cache,
    input_options,
    model_options,
)
from at2_rag.cli.passages import Format
from at2_rag.cli.serve import address_options, service_options, taken_service
from at2_rag.cli.states import max_bytes, max_gb_option, show_indexed
from at2_rag.cli.train import (
    check_ablation_options,
    collected_option,
    collection_options,
    files_argument,
    importing,
)
from at2_rag.errors import InputError
from at2_rag.progress import announced
from at2_rag_evals.ranking.request import RankingRequest
from at2_rag_evals.request import json_option, request_options

_cluster = headed("What is taken of the cluster")
_cpus = _cluster(
    "--cpus",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="CPUs of each process.",
)
_gpus = _cluster(
    "--gpus",
    type=FiniteRange(min=0),
    default=0.0,
    show_default=True,
    help="GPUs of each process; a fraction shares one.",
)
_actors = _cluster(
    "--actors",
    type=click.IntRange(min=1),
    help="Processes, each with a model.  [default: as many as the cluster's CPUs allow]",
)


@click.group(cls=Group)
def ray_group() -> None:
    """Serve, index and evaluate on a Ray cluster.

    The cluster is the one that RAY_ADDRESS names, or one that runs on this machine; else one is
    started here, and ends with the command.
    """


@ray_group.command(common=True, short_help="Serve rerank clients over HTTP, by many replicas.")
@address_options
@service_options
@_cluster(
    "--replicas",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Replicas at least, each with a model and limits of its own.",
)
@_cluster(
    "--max-replicas",
    type=click.IntRange(min=1),
    help="Replicas at most; their number follows the load.  [default: that of --replicas]",
)
@_cluster(
    "--target-requests",
    type=FiniteRange(min=0, min_open=True),
    default=8.0,
    show_default=True,
    help="Requests in flight a replica that their number aims at.",
)
@_cpus
@_gpus
@verbose_option
def serve(
    host: str,
    port: int,
    replicas: int,
    max_replicas: int | None,
    target_requests: float,
    cpus: int,
    gpus: float,
    **values: Any,
) -> None:
    """Serve rerank clients over HTTP, as `at2-rag serve` does, by replicas on a Ray cluster.

    Requests with the same header X-Session-Id, say the name of a corpus, go to the same replica,
    which keeps what it read of their chunks. Bounds of requests hold for each replica.

    SIGTERM lets requests finish. --host and --port count unless Ray Serve runs already.
    """
    if not port:
        raise click.UsageError("--port is 0; name the port, which is the same on every node")
    settings, loading = taken_service(values)
    with announced("Loading Ray"):
        from at2_rag.ray.cluster import Worker
        from at2_rag.ray.deployment import Replicas, serve_until_signal

    wanted = Replicas(
        least=replicas,
        most=max_replicas or replicas,
        target_requests=target_requests,
        worker=Worker(cpus=cpus, gpus=gpus),
    )
    serve_until_signal(settings, wanted, loading, host=host, port=port)


@ray_group.command(common=True, short_help="Read chunks ahead of any question, by many processes.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@input_options
@chunk_cache_option
@max_gb_option
@model_options
@_actors
@_cpus
@_gpus
@verbose_option
def index(
    files: tuple[Path, ...],
    chunk_cache: Path | None,
    max_gb: float | None,
    form: Format | None,
    text_column: str,
    title_column: str,
    actors: int | None,
    cpus: int,
    gpus: float,
    **loading: Any,
) -> None:
    """Read the chunks of FILES ahead of any question, as `at2-rag index` does, on a Ray cluster.

    JSON Lines are read in parts, by as many processes as there are --actors, whatever their size;
    other files whole. Every node has to find FILES and the folder of chunk states. Chunks whose
    states are kept already are not read again, so that an interrupted run continues.
    """
    most, columns = max_bytes(max_gb), chosen_columns(text_column, title_column)
    folder = chunk_cache or default_chunk_cache()
    with announced("Loading Ray"):
        from at2_rag.ray.cluster import Worker, connect, workers_that_fit
        from at2_rag.ray.indexing import Form, index_files

        connect()
    worker = Worker(cpus=cpus, gpus=gpus)
    chunks, counts = index_files(
        files,
        Form(form, columns),
        folder=folder,
        max_bytes=most,
        actors=actors or workers_that_fit(worker),
        worker=worker,
        loading=loading,
    )
    show_indexed(chunks, counts, folder)


@ray_group.command(
    short_help="Read what head weights are fitted to, by many processes.",
    context_settings={"show_default": True},
)
@files_argument
@collected_option(required=True, help="Folder for collected features, which every node has.")
@collection_options
@_actors
@_cpus
@_gpus
@verbose_option
@click.pass_context
def collect(
    context: click.Context, /, actors: int | None, cpus: int, gpus: float, **options: Any
) -> None:
    """Read what `at2-rag train` fits head weights to, by processes of a Ray cluster.

    Afterwards `at2-rag train` with the same FILES, options and folder has nothing left to read.
    Every node has to find FILES and the folder. What the folder holds is not read again, so that an
    interrupted run continues.
    """
    check_ablation_options(context)
    with announced("Loading Ray"):
        from at2_rag.ray.cluster import Worker, connect, workers_that_fit

        connect()
    with announced("Loading torch"), importing("collecting features"):
        from at2_rag.ray.collecting import collect_shards
        from at2_rag.training.commands.collecting import CollectionRequest
    worker = Worker(cpus=cpus, gpus=gpus)
    request = CollectionRequest(**options)
    read = collect_shards(request, actors=actors or workers_that_fit(worker), worker=worker)
    click.echo(f"{read} shards read now; all that is fitted to is in {request.folder}")


@ray_group.command("eval", short_help="Compare rankings of labelled questions, by many processes.")
@request_options(RankingRequest)
@_actors
@_cpus
@_gpus
@json_option
@verbose_option
def evaluate(as_json: bool, actors: int | None, cpus: int, gpus: float, **values: Any) -> None:
    """Compare how well systems rank the gold chunks of FILES, as `at2-rag eval ranking` does.

    Report and stored scores are the same; only the scoring is done by processes of a Ray cluster.
    """
    request = RankingRequest(**values)
    with announced("Loading Ray"):
        from at2_rag.ray.cluster import Worker, connect, workers_that_fit
        from at2_rag.ray.ranking import Copies, make_remote
        from at2_rag_evals.ranking.command import run_ranking

        connect()
    worker = Worker(cpus=cpus, gpus=gpus)
    room = workers_that_fit(worker)
    if actors is not None and actors > room:
        raise InputError(f"--actors is {actors}, and the cluster has CPUs for {room}; pass fewer")
    copies = Copies(actors=actors or room, worker=worker)
    run_ranking(request, as_json=as_json, make=partial(make_remote, copies=copies))
