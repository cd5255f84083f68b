"""Bags of small pictures, written message by message."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from efv2_ros.bags.writer import BagWriter
from efv2_ros.messages.message import message, serialize

START = 1_700_000_000_000_000_000
PERIOD = 33_333_333

STORAGES = [
    ("mcap", "none"), ("mcap", "chunk"), ("mcap", "message"), ("mcap", "file"),
    ("sqlite3", "none"), ("sqlite3", "message"), ("sqlite3", "file"),
]  # fmt: skip


def picture(number, height=24, width=32):
    """BGR; every number gives another picture, part smooth and part noise."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (3, 4, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = random.integers(0, 32, (height, width, 3), np.uint8)
    return cv2.add(smooth, noise)


def header(nanoseconds, frame_id="camera"):
    stamp = message(
        "builtin_interfaces/msg/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9
    )
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def image(number, stamp, **changes):
    pixels = picture(number)
    fields = {
        "header": header(stamp), "height": 24, "width": 32, "encoding": "bgr8",
        "is_bigendian": 0, "step": 96, "data": pixels.reshape(-1),
    }  # fmt: skip
    return "sensor_msgs/msg/Image", serialize("sensor_msgs/msg/Image", **(fields | changes))


def big(number, stamp):
    """Uncompressible, and so large that a bag of them spans several chunks."""
    data = np.random.default_rng(number).integers(0, 256, 30_000, np.uint8)
    return image(number, stamp, height=100, width=100, step=300, data=data)


def compressed(number, stamp, **changes):
    data = cv2.imencode(".jpg", picture(number))[1]
    fields = {"header": header(stamp), "format": "jpeg", "data": data.reshape(-1)}
    kind = "sensor_msgs/msg/CompressedImage"
    return kind, serialize(kind, **(fields | changes))


def hbm(number, stamp):
    """HbmMsg480P, the smallest; its array is as long whatever the picture."""
    kind = "hbm_img_msgs/msg/HbmMsg480P"
    pixels = np.full((36, 32), 128, np.uint8)
    pixels[:24] = cv2.cvtColor(picture(number), cv2.COLOR_BGR2GRAY)
    data = np.zeros(921_600, np.uint8)
    data[: pixels.size] = pixels.reshape(-1)
    encoding = np.zeros(12, np.uint8)
    encoding[:4] = np.frombuffer(b"nv12", np.uint8)
    time = header(stamp).stamp
    return kind, serialize(
        kind, index=number, time_stamp=time, height=24, width=32, data_size=pixels.size, step=32,
        encoding=encoding, data=data,
    )  # fmt: skip


def stamps(count):
    return [START + number * PERIOD for number in range(count)]


def make(path, count=5, *, storage="mcap", compression="none", kind=image, topic="/image"):
    """A bag of `count` images; log times are a little later than stamps, as a recorder's are."""
    with BagWriter(path, storage=storage, compression=compression) as bag:
        for number, stamp in enumerate(stamps(count)):
            type_name, data = kind(number, stamp)
            bag.write(topic, type_name, stamp + 1_000_000, data)
    return path


def write(path, messages, **options):
    """A bag of (topic, log time, (type, data))."""
    with BagWriter(path, **options) as bag:
        for topic, log_time, (type_name, data) in messages:
            bag.write(topic, type_name, log_time, data)
    return path
