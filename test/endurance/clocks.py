"""Clocks that are set back and forth: ROS's simulated one, and the machine's."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from live import running, settled, unlikely
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from rows import Length, Row
from talker import SOON, Talker
from tiny_models import projection

from efv2_ros.files import open_atomic
from efv2_ros.node import conversions
from efv2_ros.vision.frame import Frame, Header

_SECOND = 1_000_000_000
_JUMPS = (0.001, 0.4, 2.0, 60.0, 3600.0, 86400.0 * 365)
"""Seconds by which clocks and stamps jump, either way."""

_LATE_IMAGES = 3
"""After a jump, the node drops at most two images as late."""

_LIBFAKETIME = "*/faketime/libfaketime.so.1"


def jumping_simulated_clock(length: Length) -> Row:
    """Let `/clock`, and the stamps of the images, jump back and forth.

    The classifier has `use_sim_time`. Before each jump's images, `/clock` is set to another time,
    up to a year off; the images' stamps jump by as much, or by something else, or not at all.

    Failures: no result of the three images after a jump; in the diagnostics, a negative latency, a
    rate or a count that cannot be, another time than that of `/clock`, or counts that do not add
    up to the images sent; a drop for another cause than a stamp out of order.
    """
    row = Row("simulated clock set back and forth", "jumps")
    random = length.random("jumping_simulated_clock")
    with tempfile.TemporaryDirectory() as folder:
        node = {"model_path": str(projection(Path(folder, "model.onnx"))), "use_sim_time": True,
                "qos_reliability": "reliable", "qos_depth": 10}  # fmt: skip
        with running(node) as talker:
            clock = talker.node.create_publisher(Clock, "/clock", 10)
            talker.spin_until(clock.get_subscription_count, SOON)
            now = stamp = 1_700_000_000 * _SECOND
            sent = 0
            for _ in range(length.count(250, least=8)):
                jump = _jump(random)
                now = _within(now + jump)
                stamp = random.choice((now, _within(stamp + jump), _within(stamp + _jump(random))))
                clock.publish(Clock(clock=Time(nanoseconds=now).to_msg()))
                if not talker.spin_until(partial(_reports, talker, now, 1e-3), SOON):
                    row.failures.append(f"no diagnostics of the time {now}")
                sent += _send(talker, row, stamp, jump)
                stamp += sent
                row.failures += unlikely(talker)
                row.count += 1
            _add_up(talker, row, sent)
    return row


def jumping_machine_clock(length: Length) -> Row:
    """Set the clock of the classifier's process back and forth, by libfaketime.

    Its monotonic clock goes on, as the machine's does. The images have stamps of the machine's
    clock, which so lie up to a year in the classifier's past or future.

    Failures: as of the simulated clock; the time of the diagnostics may differ by a minute.
    """
    row = Row("machine's clock set back and forth", "jumps")
    random = length.random("jumping_machine_clock")
    libraries = sorted(Path("/usr/lib").glob(_LIBFAKETIME))
    if not libraries:
        row.figures["skipped"] = "libfaketime is not installed"
        return row
    with tempfile.TemporaryDirectory() as folder:
        offset = Path(folder, "offset")
        offset.write_text("+0\n")
        node = {"model_path": str(projection(Path(folder, "model.onnx"))),
                "qos_reliability": "reliable", "qos_depth": 10}  # fmt: skip
        environment = {
            "LD_PRELOAD": str(libraries[0]), "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        with running(node, environment=environment) as talker:
            sent = 0
            for _ in range(length.count(120, least=4)):
                jump = _jump(random)
                with open_atomic(offset) as file:
                    file.write(f"{jump / _SECOND:+.3f}\n")
                now = time.time_ns() + jump
                if not talker.spin_until(partial(_reports, talker, now, 60.0), SOON):
                    row.failures.append(f"no diagnostics of the time {now}")
                sent += _send(talker, row, time.time_ns(), jump, images=1)
                row.failures += unlikely(talker)
                row.count += 1
            _add_up(talker, row, sent)
    return row


def _jump(random: Random) -> int:
    return int(random.choice((-1, 1)) * random.choice(_JUMPS) * _SECOND)


def _within(nanoseconds: int) -> int:
    """A time that messages can have; simulated time 0 is none."""
    return min(max(nanoseconds, 1), (2**31 - 1) * _SECOND)


def _reports(talker: Talker, now_ns: int, tolerance_s: float) -> bool:
    """Whether the next diagnostics have this time."""
    talker.fresh_stream()
    return abs(talker.reported_at - now_ns / _SECOND) < tolerance_s


def _send(
    talker: Talker, row: Row, stamp_ns: int, jump_ns: int, images: int = _LATE_IMAGES
) -> int:
    """Publish images until one has a result; the number of images."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    for number in range(images):
        done = len(talker.results)
        header = Header(*divmod(stamp_ns + number, _SECOND))
        talker.images.publish(conversions.image_message(Frame.from_bgr(pixels, header)))
        limit = SOON if number == images - 1 else 0.3
        if talker.wait_for_results(done + 1, limit):
            return number + 1
    row.failures.append(f"no result after a jump by {jump_ns / _SECOND} s to {stamp_ns} ns")
    return images


def _add_up(talker: Talker, row: Row, sent: int) -> None:
    reported = settled(talker, sent)
    if not (reported.received == sent and reported.complete):
        row.failures.append(f"{sent} images were sent: {reported}")
    if set(reported.drops) - {"stamp", "superseded"}:
        row.failures.append(f"dropped for other causes: {reported.drops}")
    row.figures |= {"images": str(sent), "dropped as late": str(reported.drops.get("stamp", 0))}
