"""Options of the classifier node. Imports no ROS, so that documents can be made without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, get_args

from efv2_ros.classify.option_table import Change, Option, Value, option, options_of
from efv2_ros.classify.options import MODEL_OPTIONS, VIEW_OPTIONS, ModelRequest, ViewOptions
from efv2_ros.classify.pipeline import QueuePolicy
from efv2_ros.messages.images import IMAGE_TYPES


@dataclass(frozen=True)
class NodeOptions:
    """Options that only the node has. `NODE_OPTIONS` describes each attribute."""

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


@dataclass(frozen=True)
class Settings(NodeOptions):
    """Checked values of all parameters; the node's own are attributes.

    Attributes:
        model: The model to run.
        view: How each image is handled.
        values: The parameters' values as ROS has them, by name.
    """

    model: ModelRequest = ModelRequest()
    view: ViewOptions = ViewOptions()
    values: Mapping[str, Value] = field(
        default_factory=lambda: {name: each.default for name, each in PARAMETERS.items()}
    )

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Settings:
        """Check parameters and convert them; those that are missing have their defaults.

        Raises:
            ValueError: A value is not allowed; the message names the parameter.
        """
        values = {name: values.get(name, each.default) for name, each in PARAMETERS.items()}

        def attributes(options: Mapping[str, Option]) -> dict[str, Any]:
            return {name: each.attribute(values[name]) for name, each in options.items()}

        return cls(
            **attributes(NODE_OPTIONS),
            model=ModelRequest(**attributes(MODEL_OPTIONS)),
            view=ViewOptions(**attributes(VIEW_OPTIONS)),
            values=MappingProxyType(values),
        )
