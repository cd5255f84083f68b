"""Publishes the engine's results, and accounts for every frame."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode

from efv2_ros.classify.classifier import Classified
from efv2_ros.classify.failures import cause_of, explained
from efv2_ros.classify.options import ONLY_CAMERA
from efv2_ros.node.publishers import (
    ANNOTATED,
    ANNOTATIONS,
    LABEL,
    LATENCY,
    TARGETS,
    ResultPublishers,
)
from efv2_ros.node.statistics import Statistics, stage_durations
from efv2_ros.node.warn_once import WarnOnce
from efv2_ros.runtimes.base import DeviceLostError
from efv2_ros.vision.frame import Frame


class Delivery:
    """Publishes results and counts each frame once: as classified, or as dropped.

    Args:
        node: The node, for its clock and its log.
        publishers: Returns the publishers; None while the node has none.
        statistics: Where frames are counted.
        camera: Name of the camera, for the log; empty if it is the only one.
        on_device_lost: Called for each frame that failed because the device stopped answering.
    """

    def __init__(
        self,
        node: LifecycleNode,
        publishers: Callable[[], ResultPublishers | None],
        statistics: Statistics,
        *,
        camera: str = ONLY_CAMERA,
        on_device_lost: Callable[[DeviceLostError], None],
    ) -> None:
        self._node = node
        self._publishers = publishers
        self._statistics = statistics
        self._on_device_lost = on_device_lost
        self._of = f" of {camera}" if camera else ""
        self._warn = WarnOnce(node.get_logger())

    def deliver(self, frame: Frame, outcome: Classified | Exception, waited: float) -> None:
        """Publish the outcome of a frame; see `Pipeline`.

        Args:
            frame: The frame.
            outcome: Its result, or why it has none.
            waited: Seconds that the frame waited between the stages.
        """
        publishers = self._publishers()
        try:
            if isinstance(outcome, Exception):
                raise outcome
            if publishers is not None and publishers.active:
                self._publish(publishers, frame, outcome, waited)
            else:
                self._statistics.count_dropped("inactive")
        except Exception as error:
            if self._node.context.ok():  # else the program is ending, and nobody receives results
                self.drop(error)

    def drop(self, error: Exception) -> None:
        """Count a frame that gets no result; log why, once for each cause."""
        cause = cause_of(error)
        if isinstance(error, DeviceLostError):
            self._on_device_lost(error)
        self._statistics.count_dropped(cause)
        self._warn(
            cause,
            f"dropped a frame{self._of} ({cause}): {explained(error)}. "
            "Further ones are counted in /diagnostics",
        )

    def _publish(
        self, publishers: ResultPublishers, frame: Frame, outcome: Classified, waited: float
    ) -> None:
        start = time.perf_counter()
        publishers.publish(frame, outcome)
        published = time.perf_counter() - start
        now_ns = self._node.get_clock().now().nanoseconds
        seconds = stage_durations(outcome, waited, published, now_ns, frame.header.nanoseconds)
        self._publish_with_it(LATENCY, lambda: publishers.publish_latency(frame.header, seconds))
        self._publish_with_it(LABEL, lambda: publishers.publish_label(outcome))
        self._publish_with_it(ANNOTATIONS, lambda: publishers.publish_annotations(frame, outcome))
        # Once the frame is counted, all that recordings have of it has been published.
        self._statistics.count_classified(now_ns, seconds)
        self._publish_with_it(
            TARGETS,
            lambda: publishers.publish_targets(frame, outcome, seconds, now_ns, self._statistics),
        )
        self._publish_with_it(ANNOTATED, lambda: publishers.publish_annotated(frame, outcome))

    def _publish_with_it(self, topic: str, publish: Callable[[], None]) -> None:
        """Publish what goes with a result; if that fails, the frame still counts as classified."""
        try:
            publish()
        except Exception as error:
            if self._node.context.ok():
                self._statistics.count_failed(topic)
                self._warn(
                    topic,
                    f"could not publish {topic} for a frame{self._of}: {explained(error)}. "
                    "Further failures are counted in /diagnostics",
                )
