"""A node that publishes the photos of a folder, or a video's frames, as a camera would."""

from __future__ import annotations

import functools
import math
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image

from efv2_ros.errors import Efv2Error
from efv2_ros.node import messages
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.nv12 import Nv12Converter
from efv2_ros.vision.photo import SUFFIXES, find_photos, read_photo

_QUEUE = 10
_ACKNOWLEDGEMENT = Duration(seconds=10)
_PHOTO_RATE = 10.0
_JPEG_START = b"\xff\xd8\xff"

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
"""Default and description of every parameter; all are set at start only."""


class PublisherError(Efv2Error):
    """There is nothing to publish, or a parameter makes no sense."""


class ImagePublisher(Node):
    """Publishes `image`, as Image or CompressedImage, stamped with the node's clock.

    Raises:
        PublisherError: A parameter makes no sense, or nothing can be read from `path`.
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

        self._path = Path(self._value("path")).expanduser()
        read, own_rate = self._open()
        self._frames = self._endless(read) if self._value("loop") else self._pass(read)
        self.finished = Future()
        self._publisher = self.create_publisher(
            CompressedImage if self._encoding == "jpeg" else Image,
            "image",
            QoSProfile(depth=_QUEUE, reliability=ReliabilityPolicy[reliability.upper()]),
        )
        # A steady clock: under simulated time, too, images come at the rate asked for.
        self._timer = self.create_timer(
            1.0 / (self._at_least_0("rate") or own_rate),
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
            raise PublisherError(f"{name} is not negative, {value} is")
        return value

    # From files to frames

    def _open(self) -> tuple[Callable[[], Iterator[Frame]], float]:
        """What reads all images once, and the rate at which they are meant to be seen."""
        if not self._value("path"):
            raise PublisherError("path names a folder of photos, a photo or a video; it is empty")
        if self._path.is_dir() or self._path.suffix.lower() in SUFFIXES:
            return functools.partial(self._photos, find_photos([self._path])), _PHOTO_RATE
        if not self._path.exists():
            raise PublisherError(f"there is no file {self._path}")
        video = cv2.VideoCapture(str(self._path))
        if not video.isOpened():
            raise PublisherError(f"{self._path} is neither a photo nor a video OpenCV can read")
        rate = video.get(cv2.CAP_PROP_FPS)
        return self._video, rate if 0 < rate < math.inf else _PHOTO_RATE

    def _photos(self, files: list[Path]) -> Iterator[Frame]:
        for file in list(files):
            try:
                yield self._photo(file)
            except (FrameError, OSError) as error:
                self.get_logger().warning(f"left out: {error}")
                files.remove(file)

    def _photo(self, file: Path) -> Frame:
        if self._encoding == "jpeg" and not (self._width or self._height):
            contents = np.fromfile(file, np.uint8)
            if contents[: len(_JPEG_START)].tobytes() == _JPEG_START:
                return Frame(Header(), "jpeg", contents)
        return read_photo(file)

    def _video(self) -> Iterator[Frame]:
        video = cv2.VideoCapture(str(self._path))
        while True:
            read, image = video.read()
            if not read:
                return
            yield _frame(image, "bgr8")

    def _pass(self, read: Callable[[], Iterator[Frame]]) -> Iterator[Frame]:
        empty = True
        for frame in read():
            yield frame
            empty = False
        if empty:
            raise PublisherError(f"no image can be read from {self._path}")

    def _endless(self, read: Callable[[], Iterator[Frame]]) -> Iterator[Frame]:
        while True:
            yield from self._pass(read)

    # From frames to messages

    def _on_timer(self) -> None:
        if self._publisher.get_subscription_count() < self._awaited:
            return
        self._awaited = 0
        frame = next(self._frames, None)
        if frame is None:
            self._timer.cancel()
            self._publisher.wait_for_all_acked(_ACKNOWLEDGEMENT)
            self.finished.set_result(None)
            return
        now = self.get_clock().now().to_msg()
        header = Header(now.sec, now.nanosec, self._frame_id)
        self._publisher.publish(_message(replace(self._encoded(frame), header=header)))

    def _encoded(self, frame: Frame) -> Frame:
        if frame.encoding == "jpeg":
            return frame
        image = frame.data.reshape(frame.height, frame.width, 3)
        if self._width or self._height:
            image = resized(image, self._width, self._height)
        if self._encoding == "jpeg":
            return Frame(Header(), "jpeg", cv2.imencode(".jpg", image)[1])
        return _frame(ENCODERS[self._encoding](image), self._encoding)


def _message(frame: Frame) -> Image | CompressedImage:
    if frame.encoding != "jpeg":
        return messages.image(frame)
    message = CompressedImage(header=messages.header_message(frame.header), format="jpeg")
    message.data = array("B", frame.data.tobytes())
    return message


def _frame(pixels: NDArray[Any], encoding: str) -> Frame:
    """A frame of unpadded rows: (height, width), (height, width, channels), or NV12's planes."""
    rows, width = pixels.shape[:2]
    return Frame(
        header=Header(),
        encoding=encoding,
        data=pixels.reshape(-1),
        height=rows * 2 // 3 if encoding == "nv12" else rows,
        width=width,
        step=pixels[0].nbytes,
    )


# BGR images, uint8, to other encodings. YUV comes in the ranges in which cameras send it and the
# classifier's `input_range:=auto` takes it: nv12 full, yuv422_yuy2 limited.


def resized(image: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Resize (h, w, 3) to `width` and `height`; one that is 0 follows from the aspect ratio."""
    rows, columns = image.shape[:2]
    size = (
        width or max(1, round(columns * height / rows)),
        height or max(1, round(rows * width / columns)),
    )
    shrinks = size[0] * size[1] < rows * columns
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def to_nv12(image: NDArray[Any]) -> NDArray[Any]:
    """Convert BGR (h, w, 3) to full-range NV12 (h * 3 / 2, w); odd sides lose a pixel.

    Raises:
        FrameError: The image has no 2x2 pixels.
    """
    height, width = (side // 2 * 2 for side in image.shape[:2])
    if not height or not width:
        raise FrameError("size", f"NV12 needs 2x2 pixels, not {image.shape[1]}x{image.shape[0]}")
    even = np.ascontiguousarray(image[:height, :width])
    return _nv12_converter(width, height).convert(_frame(even, "bgr8"))


def to_yuyv(image: NDArray[Any]) -> NDArray[Any]:
    """Convert BGR (h, w, 3) to limited-range YUYV (h, w, 2); an odd width loses its last column.

    Y = 16 + 219/255 Y' and U, V = 128 + 224/255 (U', V' - 128), with the full-range Y', U', V'
    of JFIF. Each is right to one step: it is rounded twice.
    """
    ycrcb = cv2.cvtColor(image[:, : image.shape[1] // 2 * 2], cv2.COLOR_BGR2YCrCb)
    height, width = ycrcb.shape[:2]
    full = np.arange(256)
    luma = np.rint(16 + full * 219 / 255).astype(np.uint8)
    chroma = np.rint(128 + (full - 128) * 224 / 255).astype(np.uint8)
    crcb = cv2.resize(ycrcb[..., 1:], (width // 2, height), interpolation=cv2.INTER_AREA)
    yuyv = np.empty((height, width, 2), np.uint8)
    yuyv[..., 0] = luma[ycrcb[..., 0]]
    yuyv[:, 0::2, 1] = chroma[crcb[..., 1]]
    yuyv[:, 1::2, 1] = chroma[crcb[..., 0]]
    return yuyv


ENCODERS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "bgr8": lambda image: image,
    "rgb8": lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
    "mono8": lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    "nv12": to_nv12,
    "yuv422_yuy2": to_yuyv,
}
"""What makes each encoding of sensor_msgs/Image out of BGR (h, w, 3)."""

ENCODINGS = (*ENCODERS, "jpeg")
"""What can be published; `jpeg` is for CompressedImage."""


@functools.lru_cache(maxsize=8)
def _nv12_converter(width: int, height: int) -> Nv12Converter:
    return Nv12Converter(width, height, fit="stretch", nv12_range="full")


def main(args: list[str] | None = None) -> int:
    """Publish until the images end or the node is told to stop."""
    rclpy.init(args=args)
    try:
        node = ImagePublisher()
        rclpy.spin_until_future_complete(node, node.finished)
        node.destroy_node()
    except (Efv2Error, FrameError, ParameterException) as error:
        print(f"image_publisher: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
