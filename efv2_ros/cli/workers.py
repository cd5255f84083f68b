"""Workers of a command: the options `--workers` and `--cluster`, and what they open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from efv2_ros.workers.cluster import DaskWorkers
from efv2_ros.workers.processes import LocalWorkers, cores
from efv2_ros.workers.workers import Workers

Command = TypeVar("Command", bound=Callable[..., Any])

MOST_PROCESSES = 1024


def worker_options(*, workers: str, cluster: str) -> Callable[[Command], Command]:
    """Add `--workers`, as `processes`, and `--cluster`; both make a `Where`.

    Args:
        workers: Help text of `--workers`.
        cluster: Help text of `--cluster`.
    """

    def add(command: Command) -> Command:
        command = click.option("--cluster", metavar="ADDRESS", help=cluster)(command)
        return click.option(
            "--workers",
            "processes",
            type=click.IntRange(1, MOST_PROCESSES),
            metavar="N",
            help=workers,
        )(command)

    return add


@dataclass(frozen=True)
class Where:
    """Where the tasks of a command run.

    Attributes:
        processes: Number of processes of this machine; None is one a core.
        cluster: Address of a Dask scheduler; None is this machine.

    Raises:
        click.UsageError: Both are given.
    """

    processes: int | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        if self.processes and self.cluster:
            raise click.UsageError("--workers are of this machine, and --cluster has its own")

    @property
    def is_given(self) -> bool:
        """Whether either option is given."""
        return bool(self.processes or self.cluster)

    def open(self) -> Workers[Any]:
        """Connect to the cluster, or make the processes.

        Raises:
            WorkersError: There is no such cluster.
        """
        return DaskWorkers(self.cluster) if self.cluster else LocalWorkers(self.processes or 0)

    def cores_each(self, available: int | None = None) -> int:
        """Share cores between the processes; 0 for a cluster, whose machines are unknown.

        Args:
            available: Number of the cores; None is all that this process may use.
        """
        available = available or cores()
        return 0 if self.cluster else max(1, available // (self.processes or available))
