"""A classifier in its own process over real DDS, for checks that run outside of pytest."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import rclpy
from talker import SOON, Talker, values

from efv2_ros.client.process import ClassifierProcess
from efv2_ros.client.ros import ros_context
from efv2_ros.client.status import Counts, counts_of, stage_latencies

_numbers = itertools.count()


@contextmanager
def running(
    parameters: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    wait: bool = True,
    **publisher: Any,
) -> Iterator[Talker]:
    """Start a classifier and a talker in a namespace of their own; end both after the block.

    Args:
        parameters: Parameters of the classifier.
        environment: Environment variables of its process, in addition to this one's.
        wait: Wait until it is active and subscribes to the talker's images.
        publisher: How the talker publishes images; see `Listener`.
    """
    # Several checks on one machine must not hear each other. 1..101 suit every middleware.
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 101 + 1))
    namespace = f"/endurance_{os.getpid()}_{next(_numbers)}"
    own = {**os.environ, **(environment or {})}
    with (
        ros_context() as context,
        ClassifierProcess(
            {"diagnostics_period": 0.2, **parameters}, namespace=namespace, environment=own
        ) as process,
    ):
        node = rclpy.create_node("talker", namespace=namespace, context=context)
        talker = Talker(node, process, **publisher)
        try:
            if wait and not talker.wait_for_classifier():
                raise RuntimeError(f"the classifier does not start: {process.stop()}")
            yield talker
        finally:
            talker.close()


def counts(talker: Talker) -> Counts:
    """What the classifier reports next."""
    talker.fresh_stream()
    return counts_of(talker.stream)


def settled(talker: Talker, received: int) -> Counts:
    """Wait until the classifier is done with so many images, or for a long time; its counts."""
    talker.spin_until(lambda: _is_done(counts(talker), received), SOON)
    return counts(talker)


def _is_done(reported: Counts, received: int) -> bool:
    return reported.received >= received and reported.complete


def unlikely(talker: Talker) -> list[str]:
    """What cannot be true of the newest report: negative latencies, rates or counts."""
    found = [
        f"{stage} took {latency} ms"
        for stage, latency in stage_latencies(talker.stream).items()
        if min(latency) < 0
    ]
    reported = counts_of(talker.stream)
    if reported.received < reported.classified + reported.dropped:
        found.append(f"more images have an end than were received: {reported}")
    for key, value in values(talker.stream).items():
        if key.endswith("(Hz)") and not 0 <= float(value) < 10_000:
            found.append(f"{key} is {value}")
    return found


def memory_mib(pid: int) -> float:
    """Resident memory of a process that is its own, in MiB; shared memory is not."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["RssAnon"].split()[0]) / 1024


def efv2(*arguments: Any, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run the command `efv2`; its exit status, and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "efv2_ros.cli", *map(str, arguments)],
        env={**os.environ, "COLUMNS": "400", **(environment or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout
