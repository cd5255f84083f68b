"""Options that several commands share: which model to run, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from efv2_ros.classify.options import ModelRequest, ViewOptions, parse_rgb
from efv2_ros.runtimes.base import RUNTIMES
from efv2_ros.vision.compressed import MAX_PIXELS, MOST_MAX_PIXELS
from efv2_ros.vision.nv12 import Roi

Command = TypeVar("Command", bound=Callable[..., Any])


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """An option whose text is turned into a value by a function that raises ValueError."""

    def __init__(self, metavar: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = metavar, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value of the text, or a usage error."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


_RGB = Parsed("R,G,B", parse_rgb)
ROI = Parsed("X,Y,WIDTH,HEIGHT", Roi.parse)


def model_options(command: Command) -> Command:
    """The options that say which model to run, gathered in one `ModelRequest`."""
    for option in reversed(
        [
            click.option("--size", "model_size", default="s0", show_default=True,
                         help="Model size s0, s1, s2, or a name from --catalog."),
            click.option("--model", "model_path", default="", metavar="FILE",
                         help="A model file of your own; .onnx takes --mean and --scale."),
            click.option("--catalog", "catalog_file", default="", metavar="FILE",
                         help="A YAML catalog of your own models."),
            click.option("--mean", type=_RGB,
                         help="Mean of a float model's training images, 0..255."),
            click.option("--scale", type=_RGB,
                         help="Factors applied after the mean."),
            click.option("--labels", "labels_file", default="", metavar="FILE",
                         help="Class names as txt, json or yaml."),
            click.option("--nv12-range", default="auto", show_default=True,
                         type=click.Choice(["auto", "full", "limited"]),
                         help="Range of the NV12 samples the model was compiled for."),
            click.option("--runtime", default="auto", show_default=True,
                         type=click.Choice(["auto", *RUNTIMES]), help="What runs the model."),
            click.option("--threads", default=0, show_default=True, type=click.IntRange(0),
                         help="CPU threads of one inference; 0 leaves it to the runtime."),
            click.option("--bpu-core", default=-1, show_default=True, type=click.IntRange(-1, 0),
                         help="Core of the BPU; -1 is any."),
            click.option("--bpu-priority", default=0, show_default=True,
                         type=click.IntRange(0, 255), help="Priority among the BPU's tasks."),
            click.option("--infer-timeout", default=2.0, show_default=True,
                         type=click.FloatRange(0.01, 60.0),
                         help="Seconds after which an inference on libdnn is given up."),
            click.option("--download", "allow_download", is_flag=True,
                         help="Fetch a model that is not on this machine."),
            click.option("--untrained", "allow_untrained", is_flag=True,
                         help="Without a model, make do with the untrained network."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def split_request(options: dict[str, Any]) -> ModelRequest:
    """Takes the options of `model_options` out of `options`."""
    return ModelRequest(**{name: options.pop(name) for name in _REQUEST_OPTIONS})


_REQUEST_OPTIONS = (
    "model_size", "model_path", "catalog_file", "mean", "scale", "labels_file", "nv12_range",
    "runtime", "threads", "bpu_core", "bpu_priority", "infer_timeout", "allow_download",
    "allow_untrained",
)  # fmt: skip


def fit_options(command: Command) -> Command:
    """The options `fit` and `antialias` of a `ViewOptions`."""
    for option in reversed(
        [
            click.option("--fit", default="crop", show_default=True,
                         type=click.Choice(["crop", "letterbox", "stretch"]),
                         help="How an image fills the model's input."),
            click.option("--antialias/--no-antialias", default=True, show_default=True,
                         help="Take means where an image shrinks."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def view_options(command: Command) -> Command:
    """The options that say how an image is looked at, gathered in one `ViewOptions`."""
    for option in reversed(
        [
            fit_options,
            click.option("--roi", type=ROI, help="Part of the image to classify, in pixels."),
            click.option("--max-pixels", default=MAX_PIXELS, show_default=True,
                         type=click.IntRange(1, MOST_MAX_PIXELS),
                         help="Pixels that a compressed image may declare."),
            click.option("--top-k", default=5, show_default=True, type=click.IntRange(1, 1000),
                         help="Most results an image."),
            click.option("--threshold", "score_threshold", default=0.0, show_default=True,
                         type=click.FloatRange(0.0, 1.0),
                         help="Leave results with a lower score out."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def split_view(options: dict[str, Any]) -> ViewOptions:
    """Takes the options of `view_options` out of `options`."""
    return ViewOptions(**{name: options.pop(name) for name in _VIEW_OPTIONS})


_VIEW_OPTIONS = ("fit", "roi", "antialias", "max_pixels", "top_k", "score_threshold")


def ros_is_missing(error: ImportError) -> click.ClickException:
    """What is said by a command that needs ROS, where its import failed."""
    return click.ClickException(
        f"ROS 2 is not here ({error}): source its setup file, or run scripts/demo of the source, "
        "which brings ROS along"
    )
