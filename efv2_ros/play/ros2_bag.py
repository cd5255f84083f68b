"""`ros2 bag play`, run while messages are handled."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rclpy.qos import HistoryPolicy

from efv2_ros.client.process import end_process
from efv2_ros.client.spinner import Spinner
from efv2_ros.play.options import PlayError
from efv2_ros.play.player import ACKNOWLEDGE_TIMEOUT_S, Gate
from efv2_ros.play.qos import PublishedTopic

_DISCOVERY_S = 2.0
"""Delay before its first message: it does not wait for subscribers."""

_END_TIMEOUT_S = 0.5
"""For it to end before it is killed."""

_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}


class Ros2Bag:
    """Has `ros2 bag play` publish the messages of a bag; see `Player`.

    Args:
        spinner: The node whose messages are handled meanwhile.
        bag: The bag.
        topics: What to play.
        rate: Playback speed; 2 is twice real time.
        clock_rate_hz: How often `/clock` is published; 0 for never.

    Attributes:
        topics: As given.
        sent: Messages of the bag by topic, once it has been played to its end.
        max_lateness_s: Not known, and so 0.
    """

    def __init__(
        self,
        spinner: Spinner,
        bag: Path,
        topics: Sequence[PublishedTopic],
        rate: float,
        clock_rate_hz: float,
    ) -> None:
        self.topics = topics
        self.sent: Counter[str] = Counter()
        self.max_lateness_s = 0.0
        self._spinner, self._bag = spinner, bag
        self._rate, self._clock_rate_hz = rate, clock_rate_hz

    def is_connected(self, topic: PublishedTopic) -> bool:
        """Always true: it cannot be known before it runs."""
        return True

    def play(self, gate: Gate | None) -> None:
        """Run it to its end; it knows no gate.

        Raises:
            PlayError: It cannot be run, or fails.
        """
        if shutil.which("ros2") is None:
            raise PlayError(
                "there is no `ros2` here: source ROS 2's setup file, or use --player efv2"
            )
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as overrides:
            overrides.write(self.qos_overrides())
            overrides.flush()
            self._run(self.command(overrides.name))
        self.sent.update({topic.recorded.name: topic.recorded.count for topic in self.topics})

    def command(self, overrides: str) -> list[str]:
        """The command line, with options that Humble knows.

        Args:
            overrides: The file with `qos_overrides`.
        """
        line = ["ros2", "bag", "play", str(self._bag), "--disable-keyboard-controls"]
        if not self._bag.is_dir() and self._bag.suffix in _STORAGES:
            line += ["--storage", _STORAGES[self._bag.suffix]]  # a folder's metadata say it
        line += ["--rate", f"{self._rate:g}", "--delay", f"{_DISCOVERY_S:g}"]
        line += ["--wait-for-all-acked", f"{ACKNOWLEDGE_TIMEOUT_S * 1e3:.0f}"]  # milliseconds
        line += ["--qos-profile-overrides-path", overrides]
        if self._clock_rate_hz:
            line += ["--clock", f"{self._clock_rate_hz:g}"]
        line += ["--topics", *(topic.recorded.name for topic in self.topics)]
        renamed = [
            f"{each.recorded.name}:={each.name}"
            for each in self.topics
            if each.recorded.name != each.name
        ]
        return [*line, "--remap", *renamed] if renamed else line

    def qos_overrides(self) -> str:
        """The QoS of all topics as JSON, which is YAML: it would choose another by itself."""
        return json.dumps({topic.recorded.name: _described(topic.qos) for topic in self.topics})

    def _run(self, line: Sequence[str]) -> None:
        # In a session of its own: Ctrl-C is for this process, which ends the other.
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            self._spinner.spin_until(lambda: process.poll() is not None, math.inf)
        finally:
            end_process(process, _END_TIMEOUT_S)
        if process.returncode:
            raise PlayError(f"ros2 bag play ended with status {process.returncode}")


def _described(qos: Any) -> Mapping[str, Any]:
    described = {
        name: getattr(qos, name).short_key
        for name in ("history", "reliability", "durability", "liveliness")
    }
    if qos.history == HistoryPolicy.KEEP_LAST:
        described["depth"] = qos.depth
    for name in ("deadline", "lifespan", "liveliness_lease_duration"):
        sec, nsec = divmod(getattr(qos, name).nanoseconds, 1_000_000_000)
        described[name] = {"sec": sec, "nsec": nsec}
    return described
