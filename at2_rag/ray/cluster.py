"""Connects to the cluster, and says what each process takes of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import ray

from at2_rag.errors import InputError
from at2_rag.pruning.workers import CORES_VARIABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What each process takes.

    Attributes:
        cpus: Its CPUs.
        gpus: Its GPUs; a fraction shares one.
        folder: The folder in which the command runs.
    """

    cpus: int = 1
    gpus: float = 0.0
    folder: str = field(default_factory=os.getcwd)

    @property
    def resources(self) -> dict[str, float]:
        """What Ray is asked for."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def settle(self) -> None:
        """Make the process that calls this one that reads with its cores, in the folder.

        Ray counts CPUs but keeps no process from using others. Names of folders mean the same as in
        the command, on nodes that have its folder.
        """
        os.environ[CORES_VARIABLE] = str(self.cpus)
        if os.path.isdir(self.folder):
            os.chdir(self.folder)


def connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, or to one that runs here; else start one here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    if not ray.is_initialized():
        ray.init(include_dashboard=False)  # of a cluster that is started; others may have one


def workers_that_fit(worker: Worker) -> int:
    """Return how many such processes the cluster has CPUs for, now that nothing else runs.

    Raises:
        InputError: If it has too few for one.
    """
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if cpus < worker.cpus:
        raise InputError(
            f"a process is to have {worker.cpus} CPUs, and the cluster has {cpus}; pass a smaller "
            "--cpus"
        )
    return cpus // worker.cpus
