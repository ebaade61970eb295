"""The cluster: how it is found, and what a process of ours takes of it."""

from __future__ import annotations

import os
from pathlib import Path

import ray

from at2_rag.errors import InputError
from at2_rag.model.hub import BUILT_INS
from at2_rag.pruning.workers import CORES_VARIABLE
from at2_rag.readout.shipped import named_or_folder


def connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, or to one that runs here; else start one here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    if not ray.is_initialized():
        ray.init()


def use_cores(cpus: int) -> None:
    """Let this process read with so many cores: those that Ray counts as its own.

    Ray counts them, but keeps nobody from using others, and sets the threads of one operation only.
    """
    os.environ[CORES_VARIABLE] = str(cpus)


def workers_that_fit(cpus: int) -> int:
    """Return how many processes with so many CPUs the cluster has room for now.

    Raises:
        InputError: If there is no room for one.
    """
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < cpus:
        raise InputError(
            f"a process is to have {cpus} CPUs, and the cluster has {there}; pass a smaller --cpus"
        )
    return there // cpus


def absolute_model(name: str | None) -> str | None:
    """Return a model's folder as every process finds it; any other name as it is."""
    is_folder = name is not None and name not in BUILT_INS and os.path.isdir(name)
    return str(Path(str(name)).absolute()) if is_folder else name


def absolute_weights(name: str | None) -> str | None:
    """Return a folder of head weights as every process finds it; any other name as it is."""
    folder = named_or_folder(name)
    return str(folder.absolute()) if isinstance(folder, Path) else folder
