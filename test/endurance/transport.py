"""The way between camera and classifier is cut: the node is stopped, shared memory is full."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import levels
import numpy as np
from bag_maker import make
from cameras import camera, is_from
from live import efv2, memory_mib, running, settled, unlikely
from mounts import Disk, in_own_mounts
from rclpy.qos import ReliabilityPolicy
from rows import Length, Row
from talker import SOON, Talker
from tiny_models import projection

from efv2_ros.node import conversions
from efv2_ros.vision.frame import Frame, Header

_RATE_HZ = 30
_STOPPED_S = 5.0
_MAY_GROW = {"MiB of memory": 16, "threads": 0, "open files": 0}
_cameras = itertools.count(1)
_PIXELS = np.zeros((480, 640), np.uint8)


def stopped_node(length: Length) -> Row:
    """Stop the classifier's process for five seconds while images come, and let it go on.

    SIGSTOP, five seconds at 30 images a second, SIGCONT; the images are reliable or best effort.
    Of the images that come meanwhile, the queue of one keeps the newest: the others are replaced
    before the node receives them. Its diagnostics tell of them by the rate of the images, which
    falls; the check counts them.

    Failures: no result of an image that is published after SIGCONT; more than two results of
    images that were published before and are not the newest; results out of order; a rate in the
    diagnostics as if no image were missing; other counts in the diagnostics than there are
    results and drops; more threads, open files, or 16 MiB of own memory after the last time than
    after the first.
    """
    row = Row("node stopped for 5 s", "times")
    skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        node = {"model_path": str(projection(Path(folder, "model.onnx")))}
        count = length.count(12)
        for policy, times in (
            (ReliabilityPolicy.BEST_EFFORT, (count + 1) // 2),
            (ReliabilityPolicy.RELIABLE, count // 2),
        ):
            if times:
                with running(node, reliability=policy) as talker:
                    skipped += _stop_again_and_again(talker, row, times)
    row.figures["images replaced by newer ones meanwhile"] = str(skipped)
    return row


def _stop_again_and_again(talker: Talker, row: Row, count: int) -> int:
    """Do so, and return how many images were replaced."""
    pid = talker.process.pid
    published: list[float] = []

    def publish() -> None:
        published.append(time.monotonic())
        talker.images.publish(conversions.image_message(_grey(Header(len(published)))))

    timer = talker.node.create_timer(1 / _RATE_HZ, publish)
    talker.wait_for_results(10)
    skipped, uses = 0, []
    for _ in range(count):
        done, first = len(talker.results), len(published) + 1
        _stop(talker, pid)
        last = len(published)
        if not talker.spin_until(partial(_is_past, talker, last), SOON):
            row.failures.append(f"no result after SIGCONT; {talker.process.stop()}")
            return skipped
        meanwhile = range(first, last + 1)
        stale = set(meanwhile).intersection(_numbers(talker)[done:])
        skipped += len(meanwhile) - len(stale)
        if len(stale - {last}) > 2:
            row.failures.append(f"{len(stale)} of {len(meanwhile)} stale images have results")
        _, told = talker.fresh_stream()
        if not 0 < float(told["input rate (Hz)"]) < 0.75 * _RATE_HZ:
            row.failures.append(f"the diagnostics tell of {told['input rate (Hz)']} Hz")
        row.failures += unlikely(talker)
        row.count += 1
        uses.append(_uses(pid))
    talker.node.destroy_timer(timer)
    talker.spin_for(0.5)
    reported, results = settled(talker, 0), _numbers(talker)
    if results != sorted(results):
        row.failures.append("results are out of order")
    if not reported.complete or reported.classified != len(results):
        row.failures.append(f"{len(results)} results came: {reported}")
    if any(uses[-1][what] > uses[0][what] + _MAY_GROW[what] for what in _MAY_GROW):
        row.failures.append(f"the classifier has {uses[-1]}, at first {uses[0]}")
    return skipped


def _stop(talker: Talker, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        talker.spin_for(_STOPPED_S)
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_past(talker: Talker, number: int) -> bool:
    return _numbers(talker)[-1] > number


def _numbers(talker: Talker) -> list[int]:
    """The numbers of the images with results."""
    return [each.header.stamp.sec for each in talker.results]


def _uses(pid: int) -> dict[str, float]:
    """What a process has: memory in MiB, threads, open files."""
    return {
        "MiB of memory": memory_mib(pid),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "open files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


@in_own_mounts
def full_shared_memory(length: Length) -> Row:
    """Fill the shared memory through which Fast DDS sends images on one machine.

    A classifier and a publisher start with room in `/dev/shm`. It is filled up to a random number
    of pages, often to the last one; then the publisher goes on, another one starts, reliable or
    best effort, and another classifier with a publisher of its own. Then there is room again, and
    another publisher starts.

    Failures: any of them without a result in 30 s; a result of a torn image; a classifier that
    ends. The very first ROS program of a machine is not among them: without a page, the system
    kills it in LTTng, which rclpy loads, before it comes to its own code.
    """
    row = Row("shared memory full", "publishers and classifiers")
    random = length.random("full_shared_memory")
    memory = Disk(Path("/dev/shm"), 256 * 2**20)
    with tempfile.TemporaryDirectory() as folder:
        node = {"model_path": str(levels.levels_model(Path(folder, "model.onnx"))),
                **levels.PARAMETERS}  # fmt: skip
        for _ in range(length.count(8)):
            with running(node) as talker:
                _send(talker, row, "with room")
                left = random.choice((0, 0, random.randrange(1, 64)))
                memory.fill(left * resource.getpagesize())
                for each in range(3):
                    _send(talker, row, f"{left} pages are left, image {each}")
                how = random.choice(("reliable", "best_effort"))
                _start_camera(talker, row, how, f"{left} pages are left")
                with running(node) as other:
                    _send(other, row, f"it started with {left} pages")
                    row.count += 1
                memory.clear()
                _start_camera(talker, row, how, "room again")
                row.failures += unlikely(talker)
                row.count += 1
                if not talker.process.running:
                    row.failures.append(f"the classifier ended: {talker.process.stop()}")
    return row


def _send(talker: Talker, row: Row, context: str) -> None:
    """Publish an image, again if it does not arrive, until there is a result."""
    done, end = len(talker.results), time.monotonic() + SOON
    while len(talker.results) == done and time.monotonic() < end:
        talker.images.publish(conversions.image_message(_grey(Header(1))))
        talker.wait_for_results(done + 1, 1.0)
    if len(talker.results) == done:
        row.failures.append(f"no result: {context}; {talker.process.stop()}")


def _start_camera(talker: Talker, row: Row, how: str, context: str) -> None:
    """Start a publisher in a process of its own and wait for a result of one of its images."""
    number = next(_cameras)
    with camera(talker.images.topic_name, number, (640, 480), how):
        if not talker.spin_until(lambda: is_from(talker, number), SOON):
            row.failures.append(f"no result of a publisher, {how}: {context}")
    row.failures += levels.wrong(talker.results)
    talker.results.clear()
    row.count += 1


def without_daemon(length: Length) -> Row:
    """Use the package while no `ros2 daemon` runs.

    The package neither has nor starts one: it does not use ros2cli, which need not be installed.
    If it is, its daemon is stopped first. Then `efv2 demo` starts a classifier and gives it
    images, and `efv2 play` plays a bag to a running classifier and waits for its results.

    Failures: a command that does not end with status 0; a daemon that runs afterwards in this
    ROS domain.
    """
    row = Row("no ros2 daemon", "commands")
    installed = shutil.which("ros2")
    row.figures["ros2cli"] = "installed" if installed else "not installed, and not needed"
    with tempfile.TemporaryDirectory() as folder:
        model = projection(Path(folder, "model.onnx"))
        bag = make(Path(folder, "bag"), topic="/lens/image")
        with running({"model_path": str(model), "queue_policy": "all"}) as talker:
            commands = (
                ["demo", "--model", model, "--frames", 3],
                ["play", bag, "--remap", f"/lens/image:={talker.images.topic_name}",
                 "--classifier", talker.process.name, "--wait-for-results"],
            )  # fmt: skip
            for number in range(length.count(10, least=2)):
                if installed:
                    subprocess.run([installed, "daemon", "stop"], timeout=SOON, check=False)
                command = commands[number % len(commands)]
                status, said = efv2(*command)
                if status != 0:
                    row.failures.append(f"efv2 {command[0]}: status {status}, {said}")
                row.count += 1
    if _daemon_runs():
        row.failures.append("a ros2 daemon runs")
    return row


def _daemon_runs() -> bool:
    """Whether a process of this ROS domain is a daemon of ros2cli."""
    own = f"ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_daemon = b"ros2-daemon" in process.joinpath("cmdline").read_bytes()
            if is_daemon and own in process.joinpath("environ").read_bytes().split(b"\0"):
                return True
    return False


def _grey(header: Header) -> Frame:
    return Frame(header, "mono8", _PIXELS.reshape(-1), *_PIXELS.shape)
