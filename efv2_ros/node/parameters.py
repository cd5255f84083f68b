"""The node's parameters: one table, from which descriptors, launch arguments and docs follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Literal

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from efv2_ros.classify.options import ModelRequest, ViewOptions, parse_rgb
from efv2_ros.classify.pipeline import QueuePolicy
from efv2_ros.node.transports import TRANSPORTS
from efv2_ros.runtimes.base import RUNTIMES
from efv2_ros.vision.compressed import MAX_PIXELS, MOST_MAX_PIXELS
from efv2_ros.vision.nv12 import Fit, InputRange, Roi


class Change(Enum):
    """When a parameter may be set; the value is said to people."""

    ALWAYS = "at any time"
    UNCONFIGURED = "while unconfigured (`ros2 lifecycle set NODE cleanup` after deactivate)"
    START = "only at start"


@dataclass(frozen=True, slots=True)
class Constraint:
    """What `ros2 param describe` shows beside a parameter's type, and what is enforced."""

    description: str
    change: Change
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless `value` may be given to the parameter `name`."""
        if self.choices and value not in self.choices:
            raise ValueError(f"{name} is one of {', '.join(self.choices)}, not '{value}'")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise ValueError(f"{name} lies in {self.low} to {self.high}, not at {value}")


def _parameter(
    default: Any,
    description: str,
    change: Change,
    *,
    choices: tuple[str, ...] = (),
    span: tuple[float, float] | None = None,
) -> Any:
    low, high = span or (None, None)
    return field(
        default=default,
        metadata={"constraint": Constraint(description, change, choices, low, high)},
    )


_ALWAYS, _UNCONFIGURED, _START = Change.ALWAYS, Change.UNCONFIGURED, Change.START


@dataclass(frozen=True)
class Settings:
    """Every parameter with its type and default. The names are the node's public interface."""

    model_size: str = _parameter(
        "s0", "EfficientFormerV2 size s0, s1 or s2, or a name from catalog_file", _ALWAYS
    )
    model_path: str = _parameter(
        "", "Model file, or folder that holds it; empty looks in the usual places", _ALWAYS
    )
    catalog_file: str = _parameter(
        "", "YAML catalog of your own models, added to the package's", _ALWAYS
    )
    mean: str = _parameter(
        "",
        "For a float model in model_path: 'R,G,B' mean in 0..255; empty: the catalog's",
        _ALWAYS,
    )
    scale: str = _parameter(
        "",
        "For a float model in model_path: 'R,G,B' factors after mean; empty: the catalog's",
        _ALWAYS,
    )
    labels_file: str = _parameter(
        "", "Class names as txt, json or yaml; empty: the catalog's", _ALWAYS
    )
    allow_download: bool = _parameter(
        False, "Download a model that is found nowhere on this machine", _ALWAYS
    )
    allow_untrained: bool = _parameter(
        False, "Without a model, run the untrained network: for trying out the plumbing", _ALWAYS
    )
    runtime: str = _parameter("auto", "What runs the model", _ALWAYS, choices=("auto", *RUNTIMES))
    threads: int = _parameter(
        0,
        "CPU threads one inference may use; 0 leaves it to the runtime",
        _ALWAYS,
        span=(0, 256),
    )
    bpu_core: int = _parameter(
        -1, "Core of the BPU to run on; -1 is any, and the X5 has one", _ALWAYS, span=(-1, 0)
    )
    bpu_priority: int = _parameter(
        0,
        "Priority among the BPU's tasks; 255 interrupts running ones",
        _ALWAYS,
        span=(0, 255),
    )
    infer_timeout: float = _parameter(
        2.0,
        "Seconds after which an inference on libdnn is given up; after three times as many "
        "without an answer the node becomes unconfigured",
        _ALWAYS,
        span=(0.01, 60.0),
    )
    slots: int = _parameter(
        1,
        "Frames the model works on at once; the next is prepared meanwhile, results stay in order",
        _UNCONFIGURED,
        span=(1, 32),
    )
    transport: str = _parameter(
        "raw",
        "Type of the image topic: raw is sensor_msgs/Image, compressed CompressedImage, the rest "
        "hbm_img_msgs/HbmMsg480P, 540P and 1080P of D-Robotics' cameras",
        _UNCONFIGURED,
        choices=tuple(TRANSPORTS),
    )
    subscription: str = _parameter(
        "serialized",
        "serialized reads images where they lie in the message as it came; typed lets rclpy "
        "unpack the message first, which copies every pixel",
        _UNCONFIGURED,
        choices=("serialized", "typed"),
    )
    frame_id: str = _parameter(
        "camera",
        "frame_id of the results for images without a header, as hbm_img_msgs'",
        _UNCONFIGURED,
    )
    fit: Fit = _parameter(
        "crop",
        "How a frame fills the model's input: crop cuts the centre out as the models were "
        "evaluated, letterbox pads, stretch distorts",
        _ALWAYS,
        choices=("crop", "letterbox", "stretch"),
    )
    roi: str = _parameter(
        "", "Part of the image to classify, 'x,y,width,height' in pixels; empty: all", _ALWAYS
    )
    nv12_range: Literal["auto", "full", "limited"] = _parameter(
        "auto",
        "Range of the NV12 samples the model was compiled for; auto: the catalog's",
        _ALWAYS,
        choices=("auto", "full", "limited"),
    )
    input_range: InputRange = _parameter(
        "auto",
        "Range of the camera's own YUV; auto: nv12 and nv21 as the model's, yuv422 limited",
        _ALWAYS,
        choices=("auto", "full", "limited"),
    )
    antialias: bool = _parameter(
        True,
        "Take means where a frame shrinks, closer to how the models were trained and evaluated; "
        "off is faster, and fine detail turns into false detail",
        _ALWAYS,
    )
    max_pixels: int = _parameter(
        MAX_PIXELS,
        "Pixels that a compressed image may declare; larger ones are dropped before they are "
        "decoded, which takes up to 11 bytes of memory per pixel",
        _ALWAYS,
        span=(1, MOST_MAX_PIXELS),
    )
    top_k: int = _parameter(5, "Most results a frame", _ALWAYS, span=(1, 1000))
    score_threshold: float = _parameter(
        0.0, "Results with a lower score are left out", _ALWAYS, span=(0.0, 1.0)
    )
    queue_policy: QueuePolicy = _parameter(
        "latest",
        "latest classifies the newest frame and drops what waited; all classifies every frame "
        "and lets them wait in the middleware",
        _UNCONFIGURED,
        choices=("latest", "all"),
    )
    qos_reliability: str = _parameter(
        "auto",
        "Reliability of the image subscription; auto: best_effort for latest, reliable for all",
        _UNCONFIGURED,
        choices=("auto", "best_effort", "reliable"),
    )
    qos_depth: int = _parameter(
        0,
        "History of the image subscription; 0: the newest frame for latest, all frames for all",
        _UNCONFIGURED,
        span=(0, 10000),
    )
    diagnostics_period: float = _parameter(
        1.0, "Seconds between two messages on /diagnostics", _ALWAYS, span=(0.1, 60.0)
    )
    stale_after: float = _parameter(
        3.0,
        "Seconds without a frame after which the stream is reported as stale",
        _ALWAYS,
        span=(0.1, 3600.0),
    )
    keep_memory: bool = _parameter(
        True,
        "Let glibc keep up to 256 MB of freed memory for the next images instead of returning it "
        "to the system each time",
        _START,
    )
    autostart: bool = _parameter(True, "Configure and activate without being told to", _START)

    def __post_init__(self) -> None:
        """Raise ValueError, naming the parameter, for a value outside its constraint."""
        for each in fields(self):
            constraint_of(each.name).check(each.name, getattr(self, each.name))
        self._roi()
        _rgb("mean", self.mean)
        _rgb("scale", self.scale)

    def model_request(self) -> ModelRequest:
        """The part of the settings that says which model to run and how."""
        return ModelRequest(
            model_size=self.model_size,
            model_path=self.model_path,
            catalog_file=self.catalog_file,
            mean=_rgb("mean", self.mean),
            scale=_rgb("scale", self.scale),
            labels_file=self.labels_file,
            nv12_range=self.nv12_range,
            runtime=self.runtime,
            slots=self.slots,
            threads=self.threads,
            bpu_core=self.bpu_core,
            bpu_priority=self.bpu_priority,
            infer_timeout=self.infer_timeout,
            allow_download=self.allow_download,
            allow_untrained=self.allow_untrained,
        )

    def view_options(self) -> ViewOptions:
        """The part of the settings that says how frames are looked at."""
        return ViewOptions(
            fit=self.fit,
            roi=self._roi(),
            input_range=self.input_range,
            antialias=self.antialias,
            max_pixels=self.max_pixels,
            top_k=self.top_k,
            score_threshold=self.score_threshold,
        )

    def _roi(self) -> Roi | None:
        return Roi.parse(self.roi) if self.roi.strip() else None


PARAMETERS: Mapping[str, Constraint] = {
    each.name: each.metadata["constraint"] for each in fields(Settings)
}
"""Constraint of every parameter, in the order of `Settings`."""


def constraint_of(name: str) -> Constraint:
    """Constraint of one parameter."""
    return PARAMETERS[name]


def declare(node: Node) -> None:
    """Declare every parameter with its default and descriptor."""
    for each in fields(Settings):
        node.declare_parameter(each.name, each.default, _descriptor(each.name, each.default))


def _descriptor(name: str, default: Any) -> ParameterDescriptor:
    constraint = PARAMETERS[name]
    descriptor = ParameterDescriptor(
        description=constraint.description,
        additional_constraints=f"changes {constraint.change.value}",
        read_only=constraint.change is Change.START,
    )
    if constraint.choices:
        descriptor.additional_constraints += f"; one of: {', '.join(constraint.choices)}"
    if constraint.low is not None and constraint.high is not None:
        if isinstance(default, int):
            span = IntegerRange(from_value=int(constraint.low), to_value=int(constraint.high))
            descriptor.integer_range = [span]
        else:
            reals = FloatingPointRange(from_value=constraint.low, to_value=constraint.high)
            descriptor.floating_point_range = [reals]
    return descriptor


def read(node: Node, changes: Mapping[str, Any] | None = None) -> Settings:
    """The declared values, with `changes` laid over them.

    Raises:
        ValueError: A value is outside its constraint; the message names the parameter.
    """
    values = {name: node.get_parameter(name).value for name in PARAMETERS}
    values.update(changes or {})
    return Settings(**values)


def _rgb(name: str, text: str) -> tuple[float, float, float] | None:
    """Three numbers between commas; None for an empty text."""
    try:
        return parse_rgb(text) if text.strip() else None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
