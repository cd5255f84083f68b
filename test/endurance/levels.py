"""Grey pictures whose class says whether they are whole, and a program that publishes them.

    python test/endurance/levels.py TOPIC NUMBER WIDTH HEIGHT RELIABILITY

The program publishes one image after the other, as fast as it can, until it is killed. It prints
a line before the first.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision_msgs.msg import Classification

LEVELS = 8
"""Number of greys, and the class of a picture that has more than one of them."""

PARAMETERS = {"fit": "stretch", "mean": "0,0,0", "scale": "1,1,1"}
"""Parameters of a classifier with the model of `levels_model`."""

_STEP, _DARKEST = 32, 16


def level(nanosec: int) -> int:
    """The grey of the image with this stamp; of two in a row, they are far apart."""
    return nanosec * 3 % LEVELS


def grey(number: int) -> int:
    """The value of a grey's pixels."""
    return _DARKEST + _STEP * number


def wrong(results: Iterable[Classification]) -> list[str]:
    """Say which results are not of the grey that the image's stamp tells."""
    return [
        f"image {stamp.nanosec} of publisher {stamp.sec}: class {best}, {LEVELS} is torn"
        for stamp, best in ((each.header.stamp, int(each.results[0].class_id)) for each in results)
        if best != level(stamp.nanosec)
    ]


def levels_model(path: Path) -> Path:
    """A model of these pictures, for mean 0 and scale 1: a class for each grey, and `LEVELS`.

    Of two greys in one picture, that class wins, however little there is of one.
    """
    import numpy as np
    from onnx import helper
    from tiny_models import save

    constants = {
        "greys": np.array([[grey(each) for each in range(LEVELS)]], np.float32),
        "tolerance": np.array([[_STEP / 2]], np.float32),
    }
    axes = {"axes": [1, 2, 3], "keepdims": 1}
    nodes = [
        *(
            helper.make_node(f"Reduce{each}", ["data"], [f"{each} of all"], **axes)
            for each in ("Mean", "Min", "Max")
        ),
        *(
            helper.make_node("Flatten", [f"{each} of all"], [each.lower()])
            for each in ("Mean", "Min", "Max")
        ),
        helper.make_node("Sub", ["greys", "mean"], ["differences"]),
        helper.make_node("Abs", ["differences"], ["distances"]),
        helper.make_node("Neg", ["distances"], ["whole"]),
        helper.make_node("Sub", ["max", "min"], ["spread"]),
        helper.make_node("Sub", ["spread", "tolerance"], ["torn"]),
        helper.make_node("Concat", ["whole", "torn"], ["output"], axis=1),
    ]
    return save(path, nodes, [1, 3, 224, 224], [1, LEVELS + 1], constants)


def main(topic: str, number: str, width: str, height: str, reliability: str) -> None:
    """Publish images whose stamps have `number` as seconds, and count in the nanoseconds."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("camera")
    policy = ReliabilityPolicy[reliability.upper()]
    publisher = node.create_publisher(Image, topic, QoSProfile(depth=5, reliability=policy))
    images = [
        Image(
            width=int(width), height=int(height), step=3 * int(width), encoding="bgr8",
            data=array("B", bytes([grey(each)]) * (3 * int(width) * int(height))),
        )
        for each in range(LEVELS)
    ]  # fmt: skip
    print("publishing", flush=True)
    for nanosec in range(1_000_000_000):
        image = images[level(nanosec)]
        image.header.stamp.sec, image.header.stamp.nanosec = int(number), nanosec
        publisher.publish(image)


if __name__ == "__main__":
    main(*sys.argv[1:])
