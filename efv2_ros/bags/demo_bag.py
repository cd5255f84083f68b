"""Bags made from photos or a video, as a camera would have sent them, with exact stamps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from efv2_ros.bags.errors import BagError
from efv2_ros.bags.writer import BagWriter, Compression, Storage
from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.messages.message import header_message, message, serialize
from efv2_ros.messages.typestore import typestore
from efv2_ros.pictures.encode import encode
from efv2_ros.pictures.pictures import Pictures
from efv2_ros.vision.compressed import MAX_PIXELS
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.pixels import COMPRESSED

START = 1_700_000_000
"""Default of the first stamp in seconds, 2023-11-14 22:13:20 UTC; fixed for reproducible bags."""

HBMEM = ("480p", "540p", "1080p")
"""Sizes of HbmMsg: the suffixes of TROS's types HbmMsg480P, 540P, 1080P in lower case."""

_SECOND = 1_000_000_000  # nanoseconds
_HIGHEST_RATE = 1_000_000
_TOPIC = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
_HBM_ENCODING = 12


@dataclass(frozen=True, slots=True)
class DemoCamera:
    """Properties of the imagined camera: image format, topic and stamps.

    Attributes:
        encoding: A key of `pictures.encode`'s tables: `jpeg` and `png` make CompressedImage, the
            others Image.
        hbmem: A size from `HBMEM` to make HbmMsg, which needs `encoding` nv12; empty otherwise.
        width: Width to resize to, in pixels; 0 keeps it, or keeps the aspect ratio for `height`.
        height: Height to resize to, in pixels; 0 keeps it, or keeps the aspect ratio for `width`.
        topic: Full name of the topic; empty for the usual one: `/image`, image_transport's
            `/image/compressed`, TROS's `/hbmem_img`.
        frame_id: Frame of the headers; HbmMsg has no header.
        start: Stamp of the first image, in nanoseconds.
        rate: Images per second; None for a video's own rate, or 10 for photos.
        reliable: Record the topic's QoS as reliable instead of best effort.

    Raises:
        BagError: `topic` is not a full name, or `encoding` does not suit HbmMsg.
    """

    encoding: str = "bgr8"
    hbmem: str = ""
    width: int = 0
    height: int = 0
    topic: str = ""
    frame_id: str = "camera"
    start: int = START * _SECOND
    rate: Fraction | None = None
    reliable: bool = True

    def __post_init__(self) -> None:
        if self.topic and not _TOPIC.fullmatch(self.topic):
            raise BagError(f"'{self.topic}' is not a full topic name, such as /camera/image")
        if self.hbmem and self.encoding != "nv12":
            raise BagError(f"HbmMsg is made with nv12, not with {self.encoding}")

    @property
    def transport(self) -> str:
        """Key of `messages.images.IMAGE_TYPES`."""
        if self.hbmem:
            return f"hbmem_{self.hbmem}"
        return "compressed" if self.encoding in COMPRESSED else "raw"

    @property
    def type_name(self) -> str:
        """Message type, `sensor_msgs/msg/Image`."""
        return IMAGE_TYPES[self.transport].name

    @property
    def topic_name(self) -> str:
        """`topic`, or its default."""
        defaults = {"raw": "/image", "compressed": "/image/compressed"}
        return self.topic or defaults.get(self.transport, "/hbmem_img")


class Recorded(NamedTuple):
    """Summary of a recorded bag.

    Attributes:
        frames: Number of images; 0 if stopped before the first, and then there is no bag.
        rate: Images per second.
        duration: Time from the first stamp to the last, in nanoseconds.
        size: Size of all files, in bytes.
    """

    frames: int
    rate: Fraction
    duration: int
    size: int


def record(
    out: Path,
    paths: Sequence[Path],
    camera: DemoCamera,
    *,
    frames: int = 0,
    storage: Storage = "mcap",
    compression: Compression = "none",
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_left_out: Callable[[str], None] = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Recorded:
    """Make a bag; after any error there is none.

    Args:
        out: Folder of the bag; must not exist.
        paths: Photos and folders of photos, or one video.
        camera: Format, topic and stamps of the images.
        frames: Number of images; the pictures are repeated as needed. 0 takes each picture once.
        storage: See `BagWriter`.
        compression: See `BagWriter`.
        max_pixels: Largest picture that is decoded, in pixels.
        on_progress: Called after each image with the number so far and the total, 0 if unknown.
        on_left_out: Called with the reason, once for each photo that cannot be read.
        should_stop: Polled before each image; True completes the bag there.

    Raises:
        BagError: The bag cannot be written, or an image or stamp does not fit its message type.
        PicturesError: There are no pictures, or none can be read.
        FrameError: A picture's size is not possible in `camera.encoding`.
    """
    resizes = camera.width or camera.height
    keeps = camera.encoding in COMPRESSED and not resizes
    pictures = Pictures(paths, on_left_out, [camera.encoding] if keeps else [], max_pixels)
    rate = camera.rate or pictures.rate
    source = itertools.islice(pictures.endless(), frames) if frames else pictures.once()
    writer = BagWriter(out, storage=storage, compression=compression)
    done, stamp = 0, camera.start
    try:
        while not should_stop():
            picture = next(source, None)
            if picture is None:
                break
            stamp = camera.start + round(done * _SECOND / rate)
            data = _message(camera, picture, stamp, done)
            writer.write(
                camera.topic_name, camera.type_name, stamp, data, reliable=camera.reliable
            )
            done += 1
            on_progress(done, frames or len(pictures))
        if done:
            writer.close()
    except BaseException:
        writer.discard()
        raise
    if not done:
        writer.discard()
    size = sum(file.stat().st_size for file in out.iterdir()) if done else 0
    return Recorded(done, rate, stamp - camera.start, size)


def parse_rate(text: str) -> Fraction:
    """Parse images per second exactly: `29.97` or `30000/1001`.

    Raises:
        ValueError: The text is not a positive number up to a million.
    """
    if not re.fullmatch(r"\d+(\.\d+)?|\d+/\d*[1-9]\d*", text, re.ASCII):
        raise ValueError(f"'{text}' is not a rate, such as 29.97 or 30000/1001")
    rate = Fraction(text)
    if not 0 < rate <= _HIGHEST_RATE:
        raise ValueError(f"'{text}' is not between 0 and a million images a second")
    return rate


def parse_stamp(text: str) -> int:
    """Parse decimal seconds to nanoseconds exactly.

    Raises:
        ValueError: The text is not a number with up to nine decimals.
    """
    if not re.fullmatch(r"\d+(\.\d{1,9})?", text, re.ASCII):
        raise ValueError(f"'{text}' is not a stamp, such as 1700000000.040000001")
    return int(Fraction(text) * _SECOND)


def _message(camera: DemoCamera, picture: Frame, stamp: int, index: int) -> bytes:
    header = Header(*divmod(stamp, _SECOND), camera.frame_id)
    if header.sec >= 2**31:
        raise BagError(f"image {index} is taken at {header.sec} s, later than ROS stamps reach")
    try:
        frame = encode(picture, camera.encoding, camera.width, camera.height)
    except FrameError as error:
        raise FrameError(error.fault, f"{picture.header.frame_id}: {error}") from error
    return serialize(camera.type_name, **_fields(camera, replace(frame, header=header), index))


def _fields(camera: DemoCamera, frame: Frame, index: int) -> dict[str, Any]:
    if camera.hbmem:
        return _hbm_fields(camera.hbmem, frame, index)
    header = header_message(frame.header)
    if camera.transport == "compressed":
        # As camera drivers write it; image_transport writes `bgr8; jpeg compressed bgr8`.
        return {"header": header, "format": frame.encoding, "data": frame.data}
    return {
        "header": header,
        "height": frame.height,
        "width": frame.width,
        "encoding": frame.encoding,
        "is_bigendian": 0,
        "step": frame.step,
        "data": frame.data,
    }


def _hbm_fields(hbmem: str, frame: Frame, index: int) -> dict[str, Any]:
    used = frame.data.size
    capacity = _capacity(hbmem)
    if used > capacity:
        fitting = [each for each in HBMEM if used <= _capacity(each)]
        fix = f"{fitting[0]} holds it" if fitting else "no HbmMsg holds it: make it smaller"
        raise BagError(
            f"an {frame.encoding} image of {frame.width}x{frame.height} pixels has {used} bytes, "
            f"and the HbmMsg of {hbmem} holds {capacity}; {fix}"
        )
    data = np.zeros(capacity, np.uint8)
    data[:used] = frame.data
    encoding = np.zeros(_HBM_ENCODING, np.uint8)
    encoding[: len(frame.encoding)] = list(frame.encoding.encode())
    sec, nanosec, _ = frame.header
    return {
        "index": index,
        "time_stamp": message("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec),
        "height": frame.height,
        "width": frame.width,
        "data_size": used,
        "step": frame.step,
        "encoding": encoding,
        "data": data,
    }


def _capacity(hbmem: str) -> int:
    return int(typestore().types[IMAGE_TYPES[f"hbmem_{hbmem}"].name].MAX_SIZE)
