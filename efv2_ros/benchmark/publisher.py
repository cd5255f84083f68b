"""A process that publishes one image at an exact rate, as a camera would.

The image is serialized once and only its stamp is new each time, so that hundreds of images a
second leave the CPU to the node.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import NamedTuple

from efv2_ros.benchmark.frames import picture
from efv2_ros.errors import Efv2Error
from efv2_ros.node.fastdds import image_profile

HIGHEST_RATE = 1000.0
"""Images a second that a publisher in Python can keep up with."""

_STAMP = struct.Struct("<iI")
_STAMP_OFFSET = 4
"""Bytes before the stamp: an Image begins with it, after the four bytes of the CDR header (OMG
DDS-RTPS 2.3, 10.2)."""

_DISCOVERY_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Camera:
    """The images that are published.

    Attributes:
        rate: Images a second.
        encoding: Encoding of the images.
        width: Width in pixels.
        height: Height in pixels.
        reliable: Whether lost images are sent again; those of cameras usually are not.
    """

    rate: float
    encoding: str = "nv12"
    width: int = 640
    height: int = 480
    reliable: bool = False

    def __str__(self) -> str:
        return f"{self.encoding} {self.width}x{self.height} at {self.rate:.0f} Hz"


class Published(NamedTuple):
    """How many images were published, and in how many seconds."""

    frames: int
    seconds: float


class CameraProcess:
    """Publishes as soon as somebody subscribes; a context manager that ends the process.

    Args:
        camera: The images.
        topic: Full name of the topic.
    """

    def __init__(self, camera: Camera, topic: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, topic, json.dumps(asdict(camera))],
            env={**os.environ, **image_profile(os.environ)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process; the child ends with its input
        )

    def __enter__(self) -> CameraProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            self._end()

    def stop(self) -> Published:
        """End the stream.

        Raises:
            Efv2Error: The process ended before, or nobody subscribed.
        """
        told = self._end()
        if self._process.returncode:
            raise Efv2Error("the benchmark's publisher failed: see above")
        return Published(*json.loads(told))

    def _end(self) -> str:
        """Close its standard input, upon which it ends, and return what it printed."""
        try:
            return self._process.communicate(timeout=_END_TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.communicate()[0]


def publish_steadily(
    publish: Callable[[bytes], None],
    image: bytearray,
    rate: float,
    ended: threading.Event,
) -> Published:
    """Publish an image at a fixed rate until `ended` is set, each time with a new stamp.

    Args:
        publish: Takes a serialized Image.
        image: A serialized Image; its stamp is overwritten.
        rate: Images a second, kept on average: a late image does not delay the next.
        ended: Ends the publishing; set by another thread.
    """
    count, start = 0, time.monotonic()
    while not ended.wait(max(0.0, start + count / rate - time.monotonic())):
        _STAMP.pack_into(image, _STAMP_OFFSET, *divmod(time.time_ns(), 1_000_000_000))
        publish(bytes(image))
        count += 1
    return Published(count, time.monotonic() - start)


def main(topic: str, camera: Camera) -> None:
    """Publish until standard input ends, then print what was published."""
    import rclpy
    from rclpy.duration import Duration
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image

    from efv2_ros.node import conversions

    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    rclpy.init(args=[])
    node = rclpy.create_node("benchmark_camera")
    reliability = ReliabilityPolicy.RELIABLE if camera.reliable else ReliabilityPolicy.BEST_EFFORT
    publisher = node.create_publisher(Image, topic, QoSProfile(depth=5, reliability=reliability))
    frame = picture(camera.encoding, camera.width, camera.height)
    image = bytearray(serialize_message(conversions.image_message(frame)))
    end = time.monotonic() + _DISCOVERY_TIMEOUT_S
    while not publisher.get_subscription_count():
        if ended.wait(0.01) or time.monotonic() > end:
            sys.exit(f"nobody subscribes to {topic}")
    print(json.dumps(publish_steadily(publisher.publish, image, camera.rate, ended)))
    publisher.wait_for_all_acked(Duration(seconds=1))  # at once where it is not reliable
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Camera(**json.loads(sys.argv[2])))
