"""Malformed images between good ones: a million without ROS, thousands through the node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, get_args

import live
import malformed_messages
import tiny_models
from rows import Check, Length, Row
from talker import SOON, Talker

from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.node.transports import TransportError, message_type
from efv2_ros.vision.frame import FrameFault

MOST_GROWTH_MB = 300
"""How much more memory malformed messages may need than good ones: a picture of the largest size
that the node accepts takes 275 MB to decode."""

LIVE_TRANSPORTS = ("raw", "compressed", "hbmem_480p")

CDR_HEADER = 4
"""Bytes before the fields of a serialized message."""

BATCH = 20
"""Malformed messages between good ones, fewer than the publisher's queue holds: none is lost."""

SCRIPT = Path(malformed_messages.__file__)


def malformed_messages_without_ros(length: Length) -> Row:
    """Malformed messages get an error with a named fault, and good ones between them their NV12.

    Raw, compressed and HbmMsg images: changed bytes, lying lengths and sizes, cut, spliced, and
    files that cost a decoder more than their size says. Not as it should be: any other exception,
    a message of more than 100 ms of CPU time (and of half as much again as the costliest good one
    takes at this moment), a process that needs 300 MB more than for good messages, or another
    NV12 image of a good one.
    """
    row = Row("malformed messages, without ROS", "messages")
    row.count = length.count(1_000_000, least=1000)
    processes = min(len(os.sched_getaffinity(0)), -(-row.count // 10_000))
    bounds = [row.count * each // processes for each in range(processes + 1)]
    with tempfile.TemporaryDirectory() as folder:
        running = {
            Path(folder, f"{first}.json"): subprocess.Popen(
                [sys.executable, SCRIPT, "--seed", str(length.seed), "--first", str(first),
                 "--count", str(last - first), "--out", Path(folder, f"{first}.json")],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for first, last in pairwise(bounds)
        }  # fmt: skip
        for out, process in running.items():
            process.wait()
            if not out.exists():
                row.failures.append(f"messages from {out.stem} on: died, {process.returncode}")
        results = [json.loads(out.read_text()) for out in running if out.exists()]
    for result in results:
        row.failures += _failures(result, length.seed)
    if results:
        row.figures = _figures(results)
    return row


def _failures(result: dict[str, Any], seed: int) -> list[str]:
    repeat = f"python test/support/malformed_messages.py --seed {seed} --count 1 --first"
    failures = [
        f"{each['kind']}: {each['error']}; {repeat} {each['number']}"
        for each in result["unexpected"]
    ]
    failures += [
        f"{each['kind']}: {each['cpu_ms']} ms; {repeat} {each['number']}"
        for each in result["slow"]
    ]
    failures += [
        f"valid message {each['valid']} ({each['transport']}) has another NV12 image after "
        f"message {each['after']}"
        for each in result["good_with_other_nv12"]
    ]
    if result["growth_mb"] > MOST_GROWTH_MB:
        failures.append(f"the memory grew by {result['growth_mb']} MB from {result['first']} on")
    return failures


def _figures(results: list[dict[str, Any]]) -> dict[str, str]:
    outcomes = sum((Counter(each["outcomes"]) for each in results), Counter())
    slowest = max((each["slowest"] for each in results), key=lambda each: each["cpu_ms"])
    beside = (
        f", the costliest good one {slowest['valid_ms']:.0f} ms" if slowest["valid_ms"] else ""
    )
    classified = outcomes.pop("classified", 0)
    return {
        "good messages between": f"{sum(each['good'] for each in results):,}",
        "still a picture": f"{classified:,}",
        **{f"fault {fault}": f"{count:,}" for fault, count in sorted(outcomes.items())},
        "slowest": f"{slowest['cpu_ms']:.0f} ms of CPU time ({slowest['kind']}){beside}",
        "peak memory": f"{max(each['peak_mb'] for each in results):.0f} MB",
        "more than good messages need": f"{max(each['growth_mb'] for each in results):.0f} MB",
    }


def malformed_messages_over_dds(length: Length) -> Row:
    """The node drops malformed messages with a named cause, and classifies good ones as at first.

    Their bytes are published as they are, to one node for each type of message. Not as it should
    be: a node that dies, a message that is neither classified nor counted under a named cause, a
    good one with another result or none, or 300 MB more memory than for good messages.
    """
    row = Row("malformed messages, through the node", "messages")
    pools = malformed_messages.Pools()
    causes: Counter[str] = Counter()
    good = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_models.projection(Path(folder, "model.onnx"))
        for transport in LIVE_TRANSPORTS:
            try:
                kind = message_type(IMAGE_TYPES[transport].name)
            except TransportError as error:
                row.figures[transport] = str(error)
                continue
            parameters = {"model_path": str(model), "queue_policy": "all", "transport": transport}
            with live.running(parameters, message_type=kind, depth=5 * BATCH) as talker:
                stream = _Stream(talker, transport, pools)
                numbers = range(length.count(20_000, least=200))
                stream.send(_of_transport(transport, numbers, length.seed, pools))
            row.count += stream.published
            row.failures += [f"{transport}: {failure}" for failure in stream.failures]
            row.figures[f"memory of the node, {transport}"] = (
                f"{stream.memory_mib:.0f} MiB and {stream.growth_mib:.0f} MiB more"
            )
            causes += stream.causes
            good += stream.good
            refused += stream.refused
    row.figures |= {f"dropped: {cause}": f"{n:,}" for cause, n in sorted(causes.items())}
    row.figures["good messages between"] = f"{good:,}"
    row.figures["refused by the middleware"] = f"{refused:,}"
    return row


class _Stream:
    """Messages to one node.

    Attributes:
        published: Malformed messages that the middleware took.
        refused: Malformed messages that it did not take.
        good: Good messages between them.
        causes: Drops by their cause.
        failures: What is not as it should be.
        memory_mib: The node's memory after a good message.
        growth_mib: The most that it had more later.
    """

    def __init__(self, talker: Talker, transport: str, pools: malformed_messages.Pools) -> None:
        self._talker = talker
        self._good_message = next(each for name, each in pools.valid() if name == transport)
        start = 4 if IMAGE_TYPES[transport].has_header else 8  # of the seconds, in CDR
        self._stamp = slice(start, start + 4)
        self.published = self.refused = self.good = 0
        self.causes: Counter[str] = Counter()
        self.failures: list[str] = []
        self._expected = self._good_result()
        self.memory_mib = live.memory_mib(talker.process.pid)
        self.growth_mib = 0.0

    def send(self, malformed: Iterator[tuple[int, bytes]]) -> None:
        """Publish malformed messages with good ones between, until one fails, and count them."""
        while batch := list(islice(malformed, BATCH)):
            for _, message in batch:
                try:
                    self._talker.images.publish(message)
                    self.published += 1
                except Exception:  # rclpy's RCLError: it is longer than its type can be
                    self.refused += 1
            if self._good_result() != self._expected:
                alive = self._talker.process.running
                said = self._talker.process.stop()[-1000:]
                self.failures.append(
                    f"another result or none of a good message after the malformed ones "
                    f"{[number for number, _ in batch]}; the node {'runs' if alive else 'died'}: "
                    f"{said}"
                )
                return
            memory = live.memory_mib(self._talker.process.pid)
            self.growth_mib = max(self.growth_mib, memory - self.memory_mib)
        self._account()

    def _account(self) -> None:
        sent = self.published + self.good
        counts = live.settled(self._talker, sent)
        self.causes.update(counts.drops)
        if unnamed := counts.drops.keys() - set(get_args(FrameFault)):
            self.failures.append(f"dropped as {', '.join(unnamed)}; {self._talker.process.stop()}")
        if not counts.received == counts.classified + counts.dropped == sent:
            self.failures.append(f"{sent} were sent, but the node counts {counts}")
        if self.growth_mib > MOST_GROWTH_MB:
            self.failures.append(f"its memory grew by {self.growth_mib:.0f} MiB")

    def _good_result(self) -> list[tuple[str, float]]:
        """The result of a good message; empty if none comes. Malformed ones have other stamps."""
        self.good += 1
        stamp = 1_500_000_000 + 100 * self.good
        message = bytearray(self._good_message)
        message[self._stamp] = stamp.to_bytes(4, "little")
        self._talker.images.publish(bytes(message))

        def has_come() -> bool:
            return any(each.header.stamp.sec == stamp for each in self._talker.results)

        self._talker.spin_until(lambda: has_come() or not self._talker.process.running, SOON)
        found = [each for each in self._talker.results if each.header.stamp.sec == stamp]
        self._talker.results.clear()
        return [(each.class_id, each.score) for result in found for each in result.results]


def _of_transport(
    transport: str, numbers: Iterable[int], seed: int, pools: malformed_messages.Pools
) -> Iterator[tuple[int, bytes]]:
    """The malformed messages of a transport among those of some numbers.

    Those that lack even CDR's header are left out: after one of no bytes, Fast DDS delivers
    nothing more of its publisher, whatever the subscriber does.
    """
    for number in numbers:
        _, kind, message = malformed_messages.malformed(number, seed, pools)
        if kind == transport and len(message) >= CDR_HEADER:
            yield number, message


CHECKS: tuple[Check, ...] = (malformed_messages_without_ros, malformed_messages_over_dds)
