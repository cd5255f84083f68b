"""The session of `efv2 demo`: a classifier that is given photos one by one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from efv2_ros.classify.latency import Percentiles
from efv2_ros.client.listener import Listener, running_classifier
from efv2_ros.client.process import ClassifierProcess
from efv2_ros.client.status import stage_latencies, values
from efv2_ros.errors import Efv2Error
from efv2_ros.vision.frame import Frame

_START_TIMEOUT_S = 120.0
"""A first start may download a model."""


class DemoError(Efv2Error):
    """The node did not start, or a photo got no result."""


@dataclass(frozen=True)
class Result:
    """The node's answer to one photo.

    Attributes:
        photo: The photo's name.
        seconds: Time from publishing the photo to its result.
        classes: Score, 0..1, and name of the best classes, best first.
    """

    photo: str
    seconds: float
    classes: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Summary:
    """The node's diagnostics after the last photo.

    Attributes:
        latencies: Latency of each stage, in milliseconds.
        stream: Key-value pairs of the status `stream`.
        model: Key-value pairs of the status `model`.
    """

    latencies: Mapping[str, Percentiles]
    stream: Mapping[str, str]
    model: Mapping[str, str]


class Demo:
    """A classifier node that waits for photos; made by `start`."""

    def __init__(self, process: ClassifierProcess, listener: Listener) -> None:
        self._process = process
        self._listener = listener

    @property
    def method(self) -> str:
        """Name of the model, as the node announces it."""
        method: str = self._listener.vision_info[-1].method
        return method

    @property
    def topic(self) -> str:
        """The topic that photos are published on."""
        topic: str = self._listener.images.topic_name
        return topic

    def stream(self, photos: Sequence[Frame], count: int, period_s: float) -> Iterator[Result]:
        """Publish photos one by one and yield the result of each.

        Args:
            photos: The photos; after the last one the first one follows again.
            count: How many to publish.
            period_s: Shortest time between two of them.

        Raises:
            DemoError: A photo got no result.
            KeyboardInterrupt: SIGINT or SIGTERM came.
        """
        listener = self._listener
        names = [each.class_name for each in listener.label_info[-1].class_map]
        turns = itertools.islice(itertools.cycle(photos), count)
        for number, photo in enumerate(turns, start=1):
            published = time.monotonic()
            listener.publish(photo)
            if not listener.wait_for_results(number):
                raise DemoError(f"no result for {photo.header.frame_id}\n{self._process.stop()}")
            result = listener.results[-1]
            yield Result(
                result.header.frame_id,
                listener.arrivals[-1] - published,
                tuple((each.score, names[int(each.class_id)]) for each in result.results),
            )
            listener.spin_for(published + period_s - time.monotonic())

    def summary(self) -> Summary:
        """Wait for the node's next diagnostics.

        Raises:
            DemoError: The node publishes none.
        """
        listener = self._listener
        listener.wait_for_diagnostics()
        if listener.stream is None or listener.model is None:
            raise DemoError("the node publishes no diagnostics")
        return Summary(
            stage_latencies(listener.stream), values(listener.stream), values(listener.model)
        )


@contextmanager
def start(parameters: Mapping[str, Any]) -> Iterator[Demo]:
    """Start a classifier node, wait until it receives images, and end it after the block.

    Args:
        parameters: Parameters of the node.

    Raises:
        DemoError: The node did not start, or ended with an error.
    """
    with running_classifier("demo", {"queue_policy": "all", **parameters}) as (process, listener):

        def failed() -> bool:
            return listener.model is not None and listener.model.level == DiagnosticStatus.ERROR

        started = listener.spin_until(
            lambda: not process.running or listener.connected or failed(), _START_TIMEOUT_S
        )
        if not started or not process.running or failed():
            status = listener.model
            raise DemoError(
                status.message if status else f"the node did not start\n{process.stop()}"
            )
        yield Demo(process, listener)
    if process.returncode:
        raise DemoError(f"the node ended with status {process.returncode}\n{process.output}")
