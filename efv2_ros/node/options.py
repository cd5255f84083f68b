"""Options of the classifier node. Imports no ROS, so that documents can be made without it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, get_args

from efv2_ros.classify.option_table import Change, Option, Value, option, options_of, quoted
from efv2_ros.classify.options import (
    MODEL_OPTIONS,
    ONLY_CAMERA,
    VIEW_OPTIONS,
    ModelRequest,
    ViewOptions,
)
from efv2_ros.classify.pipeline import QueuePolicy
from efv2_ros.messages.images import IMAGE_TYPES

IMAGE_TOPIC = "image"
"""Topic of the images before remapping; below its name for each of several cameras."""

_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
"""What ROS allows as a part of a topic's name, without names that it reserves."""

_MOST_CAMERAS = 16


def parse_cameras(text: str) -> tuple[str, ...]:
    """Read names of cameras, with commas between them, within brackets or not.

    Raises:
        ValueError: A name is no part of a topic's name, or comes twice, or there are too many.
    """
    listed = text.strip().removeprefix("[").removesuffix("]")
    names = tuple(part.strip() for part in listed.split(","))
    for name in names:
        if not _CAMERA_NAME.fullmatch(name):
            raise ValueError(
                f"{quoted(name)} is no name of a camera, which has letters, digits and single "
                "underscores, and begins with a letter"
            )
        if names.count(name) > 1:
            raise ValueError(f"{quoted(name)} comes twice")
    if len(names) > _MOST_CAMERAS:
        raise ValueError(f"{len(names)} are more than {_MOST_CAMERAS}")
    return names


@dataclass(frozen=True)
class NodeOptions:
    """Options that only the node has. `NODE_OPTIONS` describes each attribute."""

    cameras: tuple[str, ...] | None = option(
        None,
        "Names of several cameras, as a list or with commas. Each camera NAME has its own image "
        "topic NAME/image, its own results in ~/NAME/, and its own NAME.{transport}, "
        "NAME.{frame_id}, NAME.{fit} and NAME.{roi}. Empty: one camera, which has no name",
        parse=parse_cameras,
        is_list=True,
    )
    transport: str = option(
        "raw",
        "Message type of the image topic. raw: sensor_msgs/Image; compressed: "
        "sensor_msgs/CompressedImage; the others: hbm_img_msgs/HbmMsg480P, 540P and 1080P of "
        "D-Robotics' cameras",
        Change.UNCONFIGURED,
        choices=tuple(IMAGE_TYPES),
    )
    subscription: str = option(
        "serialized",
        "How images are received. serialized: read where they lie in the received message; "
        "typed: unpacked by rclpy, which copies every pixel",
        Change.UNCONFIGURED,
        choices=("serialized", "typed"),
    )
    frame_id: str = option(
        "camera",
        "frame_id of results for images without a header, such as those of hbm_img_msgs",
        Change.UNCONFIGURED,
    )
    queue_policy: QueuePolicy = option(
        "latest",
        "latest: classify the newest image and drop those that waited; all: classify every "
        "image, and let them wait in the middleware's queue",
        Change.UNCONFIGURED,
        choices=get_args(QueuePolicy),
    )
    qos_reliability: str = option(
        "auto",
        "Reliability of the image subscription. auto: best_effort if {queue_policy} is latest, "
        "reliable if it is all",
        Change.UNCONFIGURED,
        choices=("auto", "best_effort", "reliable"),
    )
    qos_depth: int = option(
        0,
        "History depth of the image subscription. 0: one image if {queue_policy} is latest, all "
        "images if it is all",
        Change.UNCONFIGURED,
        limits=(0, 10000),
        unit="images",
    )
    diagnostics_period: float = option(
        1.0, "Seconds between two messages on /diagnostics", limits=(0.1, 60.0), unit="s"
    )
    stale_after: float = option(
        3.0,
        "Seconds without an image after which the stream is reported as stale",
        limits=(0.1, 3600.0),
        unit="s",
    )
    keep_memory: bool = option(
        True,
        "Let glibc keep up to 256 MB of freed memory for the next images instead of returning it "
        "to the system each time",
        Change.START,
    )
    autostart: bool = option(
        True, "Configure and activate at start, without a lifecycle manager", Change.START
    )


NODE_OPTIONS = options_of(NodeOptions)
"""Options that only the node has, by name."""

PARAMETERS: Mapping[str, Option] = MappingProxyType(
    {**MODEL_OPTIONS, **VIEW_OPTIONS, **NODE_OPTIONS}
)
"""Every parameter of the node, by name."""


_OF_A_CAMERA = ("transport", "frame_id", "fit", "roi")
"""Options that each of several cameras has of its own."""


def camera_options(camera: str) -> dict[str, Option]:
    """The options of one of several cameras, by name; empty ones are as for all cameras."""
    return {
        f"{camera}.{name}": replace(
            each,
            name=f"{camera}.{name}",
            default="",
            template=f"As {name}, for this camera alone. Empty: as {name}",
            choices=("", *each.choices) if each.choices else (),
        )
        for name, each in PARAMETERS.items()
        if name in _OF_A_CAMERA
    }


def image_topics(image_topic: str, cameras: str) -> dict[str, str]:
    """Name the topic of each camera's images, by the name that it has in the node.

    Args:
        image_topic: The only camera's topic; or what each of several has below its own name, or a
            name with `{camera}` in place of the camera's.
        cameras: The parameter of this name.

    Raises:
        ValueError: Several cameras would share a topic, or a camera's name is wrong.
    """
    if not cameras:
        return {IMAGE_TOPIC: image_topic}
    pattern = image_topic if "{camera}" in image_topic else f"{{camera}}/{image_topic}"
    if "//" in pattern:
        raise ValueError(
            f"image_topic:={image_topic} is the topic of one camera: for several, write "
            "{camera} where their names differ, or leave the first slash out"
        )
    return {
        f"{name}/{IMAGE_TOPIC}": pattern.replace("{camera}", name)
        for name in parse_cameras(cameras)
    }


def options_with(cameras: Sequence[str] | None) -> Mapping[str, Option]:
    """All parameters of a node with these cameras, by name."""
    options = dict(PARAMETERS)
    for camera in cameras or ():
        options |= camera_options(camera)
    return options


@dataclass(frozen=True)
class CameraSettings:
    """What may differ between cameras.

    Attributes:
        topic: Topic of the images, before remapping.
        transport: Message type of the images.
        frame_id: frame_id of results for images without a header.
        view: How each image is handled.
    """

    topic: str
    transport: str
    frame_id: str
    view: ViewOptions


@dataclass(frozen=True)
class Settings(NodeOptions):
    """Checked values of all parameters; the node's own are attributes.

    Attributes:
        model: The model to run.
        view: How each image is handled.
        streams: The settings of each camera, by its name.
        values: The parameters' values as ROS has them, by name.
    """

    model: ModelRequest = ModelRequest()
    view: ViewOptions = ViewOptions()
    streams: Mapping[str, CameraSettings] = field(
        default_factory=lambda: {
            ONLY_CAMERA: CameraSettings(
                IMAGE_TOPIC, NodeOptions.transport, NodeOptions.frame_id, ViewOptions()
            )
        }
    )
    values: Mapping[str, Value] = field(
        default_factory=lambda: {name: each.default for name, each in PARAMETERS.items()}
    )

    @property
    def views(self) -> dict[str, ViewOptions]:
        """How the images of each camera are handled, by its name."""
        return {name: each.view for name, each in self.streams.items()}

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Settings:
        """Check parameters and convert them; those that are missing have their defaults.

        Raises:
            ValueError: A value is not allowed; the message names the parameter.
        """
        given = PARAMETERS["cameras"].attribute(values.get("cameras", ""))
        options = options_with(given)
        values = {name: values.get(name, each.default) for name, each in options.items()}

        def attributes(options: Mapping[str, Option]) -> dict[str, Any]:
            return {name: each.attribute(values[name]) for name, each in options.items()}

        own = NodeOptions(**attributes(NODE_OPTIONS))
        view = ViewOptions(**attributes(VIEW_OPTIONS))

        def stream(camera: str) -> CameraSettings:
            changes = {
                name.removeprefix(f"{camera}."): each.attribute(values[name])
                for name, each in camera_options(camera).items()
                if values[name] != ""
            }
            return CameraSettings(
                f"{camera}/{IMAGE_TOPIC}",
                changes.pop("transport", own.transport),
                changes.pop("frame_id", own.frame_id),
                replace(view, **changes),
            )

        alone = CameraSettings(IMAGE_TOPIC, own.transport, own.frame_id, view)
        return cls(
            **vars(own),
            model=ModelRequest(**attributes(MODEL_OPTIONS)),
            view=view,
            streams={name: stream(name) for name in given} if given else {ONLY_CAMERA: alone},
            values=MappingProxyType(values),
        )
