"""Between ROS messages and the plain values the rest of the package works with."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header as HeaderMessage
from vision_msgs.msg import Classification, LabelInfo, ObjectHypothesis, VisionClass, VisionInfo

from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.postprocess import Prediction


def frame_from_image(message: Image) -> Frame:
    """View an Image; the frame keeps the message's pixels alive."""
    return Frame(
        header=_header(message.header),
        encoding=message.encoding,
        data=np.frombuffer(message.data, np.uint8),
        height=message.height,
        width=message.width,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
    )


def frame_from_compressed(message: CompressedImage) -> Frame:
    """View a CompressedImage holding a JPEG or PNG file.

    `format` is `jpeg` or `png` from camera drivers, and `bgr8; jpeg compressed bgr8` or the like
    from image_transport.

    Raises:
        FrameError: Another format, as compressedDepth.
    """
    words = message.format.lower().replace(";", " ").split()
    for encoding, names in (("jpeg", ("jpeg", "jpg")), ("png", ("png",))):
        if any(name in words for name in names):
            data = np.frombuffer(message.data, np.uint8)
            return Frame(header=_header(message.header), encoding=encoding, data=data)
    raise FrameError(
        "encoding", f"CompressedImage format '{message.format}' is neither jpeg nor png"
    )


def image(frame: Frame) -> Image:
    """An Image of a frame's pixels, which are copied."""
    message = Image(
        header=header_message(frame.header),
        height=frame.height,
        width=frame.width,
        encoding=frame.encoding,
        is_bigendian=int(frame.is_bigendian),
        step=frame.step,
    )
    # rclpy takes an array.array as it is; bytes would be checked one by one.
    message.data = array("B", frame.data.tobytes())
    return message


def header_message(header: Header) -> HeaderMessage:
    """The header of a frame, as it came."""
    return HeaderMessage(
        stamp=Time(sec=header.sec, nanosec=header.nanosec), frame_id=header.frame_id
    )


class ClassificationMessage:
    """A Classification that is filled anew for every image: making one costs twice as much.

    Not thread-safe; what `fill` returns is valid until the next call.
    """

    def __init__(self) -> None:
        self._message = Classification()
        self._hypotheses: list[ObjectHypothesis] = []

    def fill(self, header: Header, prediction: Prediction) -> Classification:
        """The prediction for the image of this header; ids in text, as vision_msgs wants them."""
        hypotheses, count = self._hypotheses, len(prediction.scores)
        hypotheses += [ObjectHypothesis() for _ in range(count - len(hypotheses))]
        for hypothesis, class_id, score in zip(hypotheses, *prediction, strict=False):
            hypothesis.class_id = str(class_id)
            hypothesis.score = score
        message = self._message
        message.results = hypotheses[:count]
        message.header.stamp.sec = header.sec
        message.header.stamp.nanosec = header.nanosec
        message.header.frame_id = header.frame_id
        return message


def vision_info(stamp: Time, method: str, location: str, version: int) -> VisionInfo:
    """What classifies, and where the meaning of its class ids is found."""
    return VisionInfo(
        header=HeaderMessage(stamp=stamp),
        method=method,
        database_location=location,
        database_version=version,
    )


def label_info(stamp: Time, labels: Sequence[str], threshold: float) -> LabelInfo:
    """Names of all class ids."""
    return LabelInfo(
        header=HeaderMessage(stamp=stamp),
        class_map=[
            VisionClass(class_id=class_id, class_name=name) for class_id, name in enumerate(labels)
        ],
        threshold=threshold,
    )


def _header(message: HeaderMessage) -> Header:
    return Header(message.stamp.sec, message.stamp.nanosec, message.frame_id)
