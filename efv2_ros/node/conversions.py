"""Conversions between ROS messages and the package's own types, which do not need ROS."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header as HeaderMessage
from vision_msgs.msg import Classification, LabelInfo, ObjectHypothesis, VisionClass, VisionInfo

from efv2_ros.classify.postprocess import Prediction
from efv2_ros.messages.images import file_encoding, filled_part
from efv2_ros.vision.frame import Frame, Header


def frame_from_image(message: Image) -> Frame:
    """Make a frame that views an Image's pixels."""
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
    """Make a frame that views the JPEG or PNG file in a CompressedImage.

    Raises:
        FrameError: `encoding`: it is of another format, such as compressedDepth.
    """
    data = np.frombuffer(message.data, np.uint8)
    return Frame(_header(message.header), file_encoding(message.format), data)


def frame_from_hbm(message: Any, frame_id: str) -> Frame:
    """Make a frame that views an HbmMsg480P, 540P or 1080P: D-Robotics' shared-memory images.

    Args:
        message: The message.
        frame_id: frame_id of the frame's header; the message has none.

    Raises:
        FrameError: `data`: the message claims more bytes than it can hold.
    """
    stamp = message.time_stamp
    return filled_part(
        Header(stamp.sec, stamp.nanosec, frame_id),
        (message.height, message.width, message.data_size, message.step),
        bytes(message.encoding).partition(b"\0")[0].decode("utf-8", "replace"),
        np.asarray(message.data),
    )


def image_message(frame: Frame) -> Image:
    """Make an Image with a copy of a frame's pixels."""
    message = Image(
        header=header_message(frame.header),
        height=frame.height,
        width=frame.width,
        encoding=frame.encoding,
        is_bigendian=int(frame.is_bigendian),
        step=frame.step,
    )
    message.data = array("B")
    message.data.frombytes(frame.data)
    return message


def header_message(header: Header) -> HeaderMessage:
    """Make a std_msgs/Header with the same content."""
    return HeaderMessage(
        stamp=Time(sec=header.sec, nanosec=header.nanosec), frame_id=header.frame_id
    )


class ClassificationMessage:
    """A Classification message that is reused, which halves the cost of filling it.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._message = Classification()
        self._hypotheses: list[ObjectHypothesis] = []

    def fill(self, header: Header, prediction: Prediction) -> Classification:
        """Fill the message with the prediction for the image that has this header.

        Returns:
            The message, valid until the next call. Its class ids are text, as vision_msgs has
            them.
        """
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


class PictureMessage:
    """A bgr8 Image message that is reused and whose pixels can be drawn in place.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._message = Image(encoding="bgr8")

    def allocate(self, height: int, width: int) -> NDArray[np.uint8]:
        """Give the message new pixels of this size and return a view of them.

        Returns:
            uint8 of shape (height, width, 3), writable, C-contiguous.
        """
        message = self._message
        message.height, message.width, message.step = height, width, 3 * width
        # rclpy takes over an array.array as it is, but checks the elements of bytes one by one.
        message.data = array("B", bytes(height * width * 3))
        return np.frombuffer(message.data, np.uint8).reshape(height, width, 3)

    def stamped(self, header: Header) -> Image:
        """Set the header and return the message, valid until the next call."""
        self._message.header = header_message(header)
        return self._message


def vision_info_message(stamp: Time, method: str, location: str, version: int) -> VisionInfo:
    """Make the message that says which model runs and where its labels are.

    Args:
        stamp: When this became so.
        method: The model's name.
        location: Where the labels are: the topic of the LabelInfo.
        version: Number that grows when the labels change.
    """
    return VisionInfo(
        header=HeaderMessage(stamp=stamp),
        method=method,
        database_location=location,
        database_version=version,
    )


def label_info_message(stamp: Time, labels: Sequence[str], threshold: float) -> LabelInfo:
    """Make the message with the name of each class id.

    Args:
        stamp: When this became so.
        labels: Class names; a class's id is its index.
        threshold: The least score of a published result.
    """
    return LabelInfo(
        header=HeaderMessage(stamp=stamp),
        class_map=[
            VisionClass(class_id=class_id, class_name=name) for class_id, name in enumerate(labels)
        ],
        threshold=threshold,
    )


def _header(message: HeaderMessage) -> Header:
    return Header(message.stamp.sec, message.stamp.nanosec, message.frame_id)
