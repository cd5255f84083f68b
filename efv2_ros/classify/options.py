"""Options of a classification: the model to run, and the handling of each image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from efv2_ros.classify.option_table import Change, option, options_of
from efv2_ros.classify.smoothing import SMOOTHINGS, Smoothing
from efv2_ros.runtimes.base import (
    RUNTIMES,
    ModelFormat,
    RunOptions,
    RuntimeKind,
    select_runtime,
)
from efv2_ros.vision.compressed import MAX_PIXELS, MOST_MAX_PIXELS
from efv2_ros.vision.nv12 import Fit, InputRange, Roi

NODE_NAME = "efv2_classifier"
"""Name of the classifier node, unless it is given another."""

NODE = f"/{NODE_NAME}"
"""Full name of the node, unless it is given another name or a namespace."""

ONLY_CAMERA = ""
"""Name of a node's camera if it is the only one."""

Rgb = tuple[float, float, float]
"""A number for each of R, G and B."""

ModelRange = Literal["auto", "full", "limited"]
"""Range of a model's NV12 input; `auto` is the catalog's."""


def parse_rgb(text: str) -> Rgb:
    """Read `R,G,B`, the syntax of a mean.

    Raises:
        ValueError: The text is not three numbers between commas, or one of them is not finite in
            float32, the type models calculate with.
    """
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"'{text}' is not three numbers between commas") from None
    with np.errstate(over="ignore"):
        if not np.isfinite(np.array([red, green, blue], np.float32)).all():
            raise ValueError(f"'{text}' has a number that is not finite")
    return red, green, blue


def parse_scale(text: str) -> Rgb:
    """Read `R,G,B`, the syntax of a scale.

    A negative factor is allowed: it inverts images, as some training code does.

    Raises:
        ValueError: As `parse_rgb`, or a factor is zero in float32.
    """
    scale = parse_rgb(text)
    if not np.array(scale, np.float32).all():
        raise ValueError(f"'{text}' has a factor of zero, which makes all images alike")
    return scale


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """The model to run, and how to run it. `MODEL_OPTIONS` describes each attribute.

    Empty texts, None and `auto` stand for what the catalog says. Two requests are equal if the
    same model would run in the same way; `allow_download` and `allow_untrained` do not count.
    """

    model_size: str = option(
        "s0",
        "Model to run: s0, s1 or s2 of EfficientFormerV2, or a name from {catalog_file}",
        flag="--size",
    )
    model_path: str = option(
        "",
        "Model file, or folder that holds it. Empty: search $EFV2_MODEL_DIR, the cache, and the "
        "folder of models that RDK X5 images come with",
        flag="--model",
        metavar="FILE",
    )
    catalog_file: str = option(
        "",
        "YAML catalog of your own models, in addition to the package's",
        flag="--catalog",
        metavar="FILE",
    )
    mean: Rgb | None = option(
        None,
        "Mean that a float model in {model_path} needs subtracted, as 'R,G,B' in 0..255. Empty: "
        "from the catalog",
        parse=parse_rgb,
        flag="--mean",
        metavar="R,G,B",
    )
    scale: Rgb | None = option(
        None,
        "Factors that a float model in {model_path} needs applied after the mean, as 'R,G,B'. "
        "Empty: from the catalog",
        parse=parse_scale,
        flag="--scale",
        metavar="R,G,B",
    )
    labels_file: str = option(
        "",
        "Class names, in a txt, json or yaml file. Empty: from the catalog",
        flag="--labels",
        metavar="FILE",
    )
    nv12_range: ModelRange = option(
        "auto",
        "Value range of the NV12 images that the model was compiled for. auto: as the model file "
        "states, or else from the catalog",
        choices=get_args(ModelRange),
        flag="--nv12-range",
    )
    runtime: str = option(
        "auto",
        "Library that runs the model. auto: the first that works on this machine and runs the "
        "file's format",
        choices=("auto", *RUNTIMES),
        flag="--runtime",
    )
    slots: int = option(
        1,
        "Images in inference at the same time. The next ones are prepared meanwhile, and results "
        "stay in order",
        Change.UNCONFIGURED,
        limits=(1, 32),
        flag="--slots",
    )
    threads: int = option(
        0,
        "CPU threads per inference. 0: the runtime decides",
        limits=(0, 256),
        flag="--threads",
    )
    bpu_core: int = option(
        -1,
        "BPU core to run on. -1: any core; the X5 has only one",
        limits=(-1, 0),
        flag="--bpu-core",
    )
    bpu_priority: int = option(
        0,
        "Priority among the BPU's tasks. 255 interrupts running tasks",
        limits=(0, 255),
        flag="--bpu-priority",
    )
    infer_timeout: float = option(
        2.0,
        "Seconds after which an inference on libdnn is given up. Without an answer for three "
        "times as long, the BPU counts as lost: a node becomes unconfigured",
        limits=(0.01, 60.0),
        unit="s",
        flag="--infer-timeout",
    )
    allow_download: bool = option(
        False,
        "Download the model if it is not on this machine",
        flag="--download",
        compare=False,
    )
    allow_untrained: bool = option(
        False,
        "Without a model, run the untrained network, to try out everything else. Its results "
        "mean nothing",
        flag="--untrained",
        compare=False,
    )

    def run_options(self) -> RunOptions:
        """The options of the runtime."""
        return RunOptions(**{each.name: getattr(self, each.name) for each in fields(RunOptions)})

    def select_runtime(self) -> tuple[str, RuntimeKind]:
        """Select the runtime; for `auto` by the format of the model file, if one is named.

        Returns:
            The runtime's name and its entry in `RUNTIMES`.

        Raises:
            RuntimeUnavailableError: There is no such runtime, or none that works here.
        """
        suffix = Path(self.model_path).suffix.lower()
        formats: dict[str, ModelFormat] = {".bin": "bin", ".onnx": "onnx"}
        return select_runtime(self.runtime, formats.get(suffix))


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """The conversion of each image, and which results are given; a change takes no loading.

    `VIEW_OPTIONS` describes each attribute.
    """

    fit: Fit = option(
        "crop",
        "How an image fills the model's input. crop: cut out the centre, as when the models were "
        "evaluated; letterbox: pad; stretch: distort",
        choices=get_args(Fit),
        flag="--fit",
    )
    roi: Roi | None = option(
        None,
        "Part of the image to classify, as 'x,y,width,height' in pixels. Empty: all of it",
        parse=Roi.parse,
        flag="--roi",
        metavar="X,Y,WIDTH,HEIGHT",
    )
    input_range: InputRange = option(
        "auto",
        "Value range of YUV images from the camera. auto: nv12 and nv21 as the model's, yuv422 "
        "limited",
        choices=get_args(InputRange),
        flag="--input-range",
    )
    antialias: bool = option(
        True,
        "Average pixels where an image shrinks, as when the models were trained and evaluated. "
        "Off is faster, but fine detail turns into false patterns",
        flag="--antialias",
    )
    max_pixels: int = option(
        MAX_PIXELS,
        "Maximum size of a compressed image. A larger one is dropped before it is decoded, which "
        "takes up to 11 bytes of memory per pixel",
        limits=(1, MOST_MAX_PIXELS),
        unit="pixels",
        flag="--max-pixels",
    )
    top_k: int = option(
        5,
        "Maximum number of results per image",
        limits=(1, 1000),
        flag="--top-k",
    )
    score_threshold: float = option(
        0.0,
        "Minimum score of a result; results below are left out",
        limits=(0.0, 1.0),
        flag="--threshold",
    )
    smoothing: Smoothing = option(
        "off",
        "What the results of a stream are made of, against a best class that flickers. off: of "
        "one image each; ema: of the average score over time; vote: of the best class of each "
        "image of the last {smoothing_time} seconds, and scores are shares of the votes",
        choices=SMOOTHINGS,
        flag="--smoothing",
    )
    smoothing_time: float = option(
        0.5,
        "Time constant of the average, or length of the vote, by the stamps of the images. A gap "
        "of five times as long, or a stamp that is not later than the last, begins anew",
        limits=(0.01, 60.0),
        unit="s",
        flag="--smoothing-time",
    )


MODEL_OPTIONS = options_of(ModelRequest)
"""Options of the model, by name."""

VIEW_OPTIONS = options_of(ViewOptions)
"""Options of the conversion and the results, by name."""
