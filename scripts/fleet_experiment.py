#!/usr/bin/env python3
"""Replay generated bags one by one and as a fleet, compare every byte, and measure the speed.

usage: scripts/env -- python scripts/fleet_experiment.py [--bags 200]

The bags are replayed by one process; by a command for each, for its bytes; by two processes; on a
local Dask cluster of two workers; on one of which a worker is killed midway; and on one without
the settings of config/dask.yaml. Each worker has one thread. The table is that of docs/fleet.md.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dask
import yaml
from distributed import LocalCluster

from efv2_ros.bags.demo_bag import DemoCamera, record

ROOT = Path(__file__).resolve().parents[1]
DASK = ROOT / "config" / "dask.yaml"
"""Settings of Dask, as in docs/fleet.md."""

LONG, SHORT = 300, 36
"""Images of each fiftieth bag, and of the others."""

FLEETS = ("one", "two", "dask", "killed", "untuned")
"""Folders of the fleets' results."""


def main() -> int:
    """Measure, and print the table; return 1 if a byte differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bags", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=50, help="images of a task")
    parser.add_argument("--encoding", default="nv12", help="of the images: nv12, jpeg, ...")
    parser.add_argument(
        "--speed-only", action="store_true", help="without the single replays, which take longest"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="efv2_fleet_") as folder:
        return Experiment(Path(folder), options).run()


class Experiment:
    """The bags, the ways to replay them, and how long each took."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.seconds: dict[str, float] = {}
        self.images = 0

    def run(self) -> int:
        """Do all and print the table."""
        print(f"making {self.options.bags} bags", flush=True)
        self.make_bags()
        one = "one process"
        self.timed(one, lambda: self.replay_fleet("one", "--workers", "1"))
        if not self.options.speed_only:
            print("one command a bag", flush=True)
            self.replay_each()
        self.timed("2 processes", lambda: self.replay_fleet("two", "--workers", "2"))
        with cluster() as started:
            self.replay_on("Dask, 2 workers", "dask", started)
        with cluster() as started, killing_one(started, self.folder / "killed") as killed:
            self.replay_on("Dask, 2 workers, one killed midway", "killed", started)
        with cluster(tuned=False) as started:
            self.replay_on("Dask, 2 workers, without config/dask.yaml", "untuned", started)
        print(f"\n{self.options.bags} bags, {self.images:,} images, {os.cpu_count()} cores\n")
        print("| way | seconds | images a second | of one process |")
        print("| :-- | ---: | ---: | ---: |")
        for name, seconds in self.seconds.items():
            ratio = self.seconds[one] / seconds
            print(f"| {name} | {seconds:.1f} | {self.images / seconds:.0f} | {ratio:.2f}x |")
        reference = "one" if self.options.speed_only else "single"
        others = {name: self.different(name, reference) for name in FLEETS}
        print(f"\nbags whose results differ from those of `{reference}`: {others}")
        print(f"workers killed: {len(killed)}, with {killed} of {self.options.bags} bags done")
        return int(any(others.values()) or len(killed) != 1)

    def make_bags(self) -> None:
        """Make bags of photos in an order of their own, with stamps of their own."""
        photos = sorted((ROOT / "photos" / "cards").glob("*.jpg"))
        drawn = random.Random(self.options.seed)
        (self.folder / "bags").mkdir()
        for number in range(self.options.bags):
            frames = LONG if number % 50 == 25 else SHORT
            order = [drawn.choice(photos) for _ in range(frames)]
            start = (1_700_000_000 + 1000 * number) * 10**9
            camera = DemoCamera(self.options.encoding, width=640, height=480, start=start)
            record(self.folder / "bags" / f"{number:03}", order, camera)
            self.images += frames

    def timed(self, name: str, run: Callable[[], None]) -> None:
        """Run, and note how long it took."""
        print(name, flush=True)
        start = time.monotonic()
        run()
        self.seconds[name] = time.monotonic() - start

    def replay_fleet(self, name: str, *options: str) -> None:
        """Replay all bags with one command."""
        self.efv2(
            "bags", "--results", str(self.folder / name), "--chunk", str(self.options.chunk),
            *options,
        )  # fmt: skip

    def replay_on(self, way: str, name: str, started: LocalCluster) -> None:
        """Replay all bags on a cluster, and note how long it took."""
        address = started.scheduler_address
        self.timed(way, lambda: self.replay_fleet(name, "--cluster", address))

    def replay_each(self) -> None:
        """Replay each bag with a command of its own."""
        (self.folder / "single").mkdir()
        bags = sorted(each.name for each in (self.folder / "bags").iterdir())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.replay_one, bags))

    def replay_one(self, bag: str) -> None:
        """Replay a bag with a command of its own."""
        self.efv2(f"bags/{bag}", "--jsonl", str(self.folder / "single" / f"{bag}.jsonl"))

    def efv2(self, *arguments: str) -> None:
        """Run `efv2 replay` where the bags are."""
        command = [
            sys.executable, "-m", "efv2_ros.cli", "replay", *arguments, "--size", "cards",
            "--threads", "1",
        ]  # fmt: skip
        subprocess.run(
            command, cwd=self.folder, check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def different(self, name: str, reference: str) -> int:
        """Count the bags whose results are not those of the reference, to the last byte."""
        expected = sorted((self.folder / reference).glob("*.jsonl"))
        return sum(
            not (self.folder / name / each.name).is_file()
            or (self.folder / name / each.name).read_bytes() != each.read_bytes()
            for each in expected
        )


@contextmanager
def cluster(*, tuned: bool = True) -> Iterator[LocalCluster]:
    """Start a Dask cluster of two workers, each a process with one thread.

    Args:
        tuned: Whether with the settings of config/dask.yaml.
    """
    folder = tempfile.mkdtemp(prefix="efv2_dask_")
    own = yaml.safe_load(DASK.read_text(encoding="utf-8")) if tuned else {}
    try:
        with (
            dask.config.set(dask.config.merge(dask.config.config, own)),
            LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=":0", local_directory=folder
            ) as started,
        ):
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def killing_one(started: LocalCluster, results: Path) -> Iterator[list[int]]:
    """Kill a worker of the cluster once a third of the bags is done; gives that number."""
    killed: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        bags = len(list((results.parent / "bags").iterdir()))
        while not ended.wait(0.05):
            done = len(list(results.glob("*.jsonl")))
            if done >= bags / 3:
                os.kill(started.workers[0].pid, signal.SIGKILL)
                killed.append(done)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
