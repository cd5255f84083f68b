"""`ros2 bag play`, run while messages are handled."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rclpy.qos import HistoryPolicy

from efv2_ros.client.spinner import Spinner
from efv2_ros.play.player import Gate, PlayError
from efv2_ros.play.qos import Offer

_DISCOVERY = 2.0
"""Seconds between its publishers and the first message: it does not wait for subscribers."""

_ACKNOWLEDGEMENT = 5_000
"""Milliseconds that subscribers have, at the end, to say that everything came."""

_PATIENCE = 10.0
"""Seconds after Ctrl-C before it is killed."""

_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}


class Ros2Bag:
    """Has `ros2 bag play` publish the messages of a bag; see `Player`.

    Args:
        spinner: The node whose messages are handled meanwhile.
        bag: The bag.
        offers: What to play.
        rate: Seconds of the bag in a second.
        clock_rate: How often in a second `/clock` is published; 0 for never.

    Attributes:
        offers: As given.
        sent: As many messages as the bag has, by topic, once it was played to its end.
        behind: Not known, and so 0.
    """

    def __init__(
        self, spinner: Spinner, bag: Path, offers: Sequence[Offer], rate: float, clock_rate: float
    ) -> None:
        self.offers = offers
        self.sent: Counter[str] = Counter()
        self.behind = 0.0
        self._spinner, self._bag = spinner, bag
        self._rate, self._clock_rate = rate, clock_rate

    def is_connected(self, offer: Offer) -> bool:
        """Cannot be known before it runs."""
        return True

    def play(self, gate: Gate | None, progress: Callable[[int], None]) -> None:
        """Run it to its end; neither gate nor progress are asked or told.

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
        self.sent.update({offer.topic.name: offer.topic.count for offer in self.offers})

    def command(self, overrides: str) -> list[str]:
        """The command line, of options that Humble knows.

        Args:
            overrides: The file with `qos_overrides`.
        """
        line = ["ros2", "bag", "play", str(self._bag), "--disable-keyboard-controls"]
        if not self._bag.is_dir() and self._bag.suffix in _STORAGES:
            line += ["--storage", _STORAGES[self._bag.suffix]]  # of a folder, its metadata say it
        line += ["--rate", f"{self._rate:g}", "--delay", f"{_DISCOVERY:g}"]
        line += ["--wait-for-all-acked", str(_ACKNOWLEDGEMENT)]
        line += ["--qos-profile-overrides-path", overrides]
        if self._clock_rate:
            line += ["--clock", f"{self._clock_rate:g}"]
        line += ["--topics", *(offer.topic.name for offer in self.offers)]
        renamed = [
            f"{each.topic.name}:={each.name}"
            for each in self.offers
            if each.topic.name != each.name
        ]
        return [*line, "--remap", *renamed] if renamed else line

    def qos_overrides(self) -> str:
        """The QoS of all topics, since its own choice among several publishers' is another.

        JSON, which is YAML.
        """
        return json.dumps({offer.topic.name: _described(offer.qos) for offer in self.offers})

    def _run(self, line: Sequence[str]) -> None:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL)
        try:
            while not self._spinner.until(lambda: process.poll() is not None, 1.0):
                pass
        finally:
            _end(process)
        if process.returncode:
            raise PlayError(f"ros2 bag play ended with status {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
