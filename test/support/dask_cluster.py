"""A Dask cluster of processes of this machine, started with Dask's own commands as people do."""

import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("distributed")


class Cluster:
    """A scheduler's address, and its workers' processes."""

    def __init__(self, folder, stack):
        self._folder, self._stack = Path(folder), stack
        log = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")[1]
        self.address = find(log, r"Scheduler at:\s+(tcp://\S+)")
        self.workers = []

    def add_worker(self, threads=1):
        """Start a worker without a nanny, which would start it again after its death."""
        process, log = self._start(
            "worker", self.address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard",
            "--local-directory", str(self._folder),
        )  # fmt: skip
        find(log, r"Registered to:\s+(tcp://\S+)")
        self.workers.append(process)
        return process

    def _start(self, role, *arguments):
        path = self._folder / f"{role}{len(list(self._folder.glob('*.log')))}.log"
        support = str(Path(__file__).parent)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]),
        }
        log = self._stack.enter_context(path.open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + role, *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
            cwd=self._folder,
        )  # fmt: skip
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process, path


def find(log, pattern, seconds=60):
    """Wait for a line in a log, and return what the pattern's group found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if match := re.search(pattern, log.read_text(errors="replace")):
            return match[1]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {log}: {log.read_text(errors='replace')}")


@contextmanager
def dask_cluster(folder, workers=2):
    """Start a scheduler and some workers; all end with the block."""
    with ExitStack() as stack:
        cluster = Cluster(folder, stack)
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
