"""A node that publishes photos or a video's frames as a camera does."""

from __future__ import annotations

import math
import sys
import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image

from efv2_ros.errors import Efv2Error
from efv2_ros.node import conversions
from efv2_ros.node.running import run
from efv2_ros.pictures.encode import ENCODERS, encode
from efv2_ros.pictures.pictures import Pictures
from efv2_ros.vision.frame import Frame, Header

_QUEUE = 10
_ACKNOWLEDGEMENT_TIMEOUT_S = 10.0
_POLL_S = 0.1
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 0.001, 1000.0

ENCODINGS = (*ENCODERS, "jpeg")
"""Values of the parameter `encoding`; `jpeg` makes the topic one of CompressedImage."""

_PARAMETERS: dict[str, tuple[Any, str]] = {
    "path": ("", "Folder of photos, photo, or video file"),
    "rate": (0.0, "Images a second; 0: a video's own rate, 10 for photos"),
    "encoding": ("bgr8", "bgr8, rgb8, mono8, nv12, yuv422_yuy2, or jpeg for CompressedImage"),
    "width": (0, "Width to resize to; 0: as it is, or as height asks for"),
    "height": (0, "Height to resize to; 0: as it is, or as width asks for"),
    "frame_id": ("camera", "frame_id of the headers"),
    "loop": (True, "Start again after the last image; otherwise end"),
    "reliability": ("reliable", "reliable, which serves every subscriber, or best_effort"),
    "wait_for_subscribers": (0, "Subscribers to wait for before the first image"),
}
"""Default and description of every parameter; all can be set at the start only."""


class PublisherError(Efv2Error):
    """A parameter has an impossible value."""


class ImagePublisher(Node):
    """Publishes `image`, as Image or CompressedImage, stamped with the node's clock.

    Raises:
        PublisherError: A parameter has an impossible value.
        PicturesError: `path` has no pictures.
        FrameError: `path` is a folder without photos.
    """

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("image_publisher", **node_arguments)
        for name, (default, description) in _PARAMETERS.items():
            self.declare_parameter(
                name, default, ParameterDescriptor(description=description, read_only=True)
            )
        self._encoding = self._choice("encoding", ENCODINGS)
        self._width, self._height = self._at_least_0("width"), self._at_least_0("height")
        self._awaited = self._at_least_0("wait_for_subscribers")
        self._frame_id = str(self._value("frame_id"))
        reliability = self._choice("reliability", ("reliable", "best_effort"))

        pictures = self._open()
        self._frames = pictures.endless() if self._value("loop") else pictures.once()
        self.finished = Future()
        self._publisher = self.create_publisher(
            CompressedImage if self._encoding == "jpeg" else Image,
            "image",
            QoSProfile(depth=_QUEUE, reliability=ReliabilityPolicy[reliability.upper()]),
        )
        # By a steady clock: simulated time does not change the rate.
        self._timer = self.create_timer(
            1.0 / (self._rate() or float(pictures.rate)),
            self._on_timer,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = str(self._value(name))
        if value not in choices:
            raise PublisherError(f"{name} is one of {', '.join(choices)}, not '{value}'")
        return value

    def _at_least_0(self, name: str) -> Any:
        value = self._value(name)
        if not 0 <= value < math.inf:
            raise PublisherError(f"{name} is not negative, but is set to {value}")
        return value

    def _rate(self) -> float:
        rate = float(self._at_least_0("rate"))
        if rate and not _LOWEST_RATE_HZ <= rate <= _HIGHEST_RATE_HZ:
            raise PublisherError(
                f"rate is 0, or lies in {_LOWEST_RATE_HZ} to {_HIGHEST_RATE_HZ:.0f}, not at {rate}"
            )
        return rate

    def _path(self) -> Path:
        path = self._value("path")
        if not path:
            raise PublisherError("path names a folder of photos, a photo or a video, but is empty")
        try:
            return Path(path).expanduser()
        except RuntimeError as error:
            raise PublisherError(f"path {path}: {error}") from error

    def _open(self) -> Pictures:
        resizes = self._width or self._height
        return Pictures(
            [self._path()],
            lambda reason: self.get_logger().warning(f"left out: {reason}"),
            kept=["jpeg"] if self._encoding == "jpeg" and not resizes else [],
        )

    def _on_timer(self) -> None:
        if self._publisher.get_subscription_count() < self._awaited:
            return
        self._awaited = 0
        frame = next(self._frames, None)
        if frame is None:
            self._timer.cancel()
            self._await_acknowledgements()
            self.finished.set_result(None)
            return
        now = self.get_clock().now().to_msg()
        header = Header(now.sec, now.nanosec, self._frame_id)
        image = encode(frame, self._encoding, self._width, self._height)
        self._publisher.publish(_message(replace(image, header=header)))

    def _await_acknowledgements(self) -> None:
        """Wait until reliable subscribers have every image."""
        end = time.monotonic() + _ACKNOWLEDGEMENT_TIMEOUT_S
        while self.context.ok() and time.monotonic() < end:
            if self._publisher.wait_for_all_acked(Duration(seconds=_POLL_S)):
                return


def _message(frame: Frame) -> Image | CompressedImage:
    if frame.encoding != "jpeg":
        return conversions.image_message(frame)
    message = CompressedImage(header=conversions.header_message(frame.header), format="jpeg")
    message.data = array("B", frame.data.tobytes())
    return message


def main(args: list[str] | None = None) -> int:
    """Run the node until its images end or a signal ends it."""

    def work(node: ImagePublisher, executor: Executor) -> None:
        executor.spin_until_future_complete(node.finished)

    return run("image_publisher", ImagePublisher, work, args=args)


if __name__ == "__main__":
    sys.exit(main())
