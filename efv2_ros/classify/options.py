"""Options of a classification: which model to run, and how to look at an image."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from efv2_ros.runtimes.base import ModelFormat, RunOptions, RuntimeKind, select_runtime
from efv2_ros.vision.compressed import MAX_PIXELS
from efv2_ros.vision.nv12 import Fit, InputRange, Roi


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which model to run and how. Empty texts and None mean "what the catalog says".

    Two requests are equal when the same model would run in the same way; what they allow in the
    search for it does not count.

    Attributes:
        model_size: `s0`, `s1`, `s2`, or a name from `catalog_file`.
        model_path: A model file, or a folder that holds the catalog's file.
        catalog_file: A catalog added to the package's.
        mean: R, G, B mean of a float model.
        scale: R, G, B factors after the mean.
        labels_file: Class names.
        nv12_range: Range of the NV12 samples the model was compiled for.
        runtime: A name from `RUNTIMES`, or `auto`.
        slots: Callers of `Classifier.classify` at once.
        threads: See `RunOptions`, as for the next three.
        bpu_core: On which core of the BPU.
        bpu_priority: Among the BPU's tasks.
        infer_timeout: In seconds.
        allow_download: Fetch a model that is not on this machine.
        allow_untrained: Make do with the untrained network when there is no model.
    """

    model_size: str = "s0"
    model_path: str = ""
    catalog_file: str = ""
    mean: tuple[float, float, float] | None = None
    scale: tuple[float, float, float] | None = None
    labels_file: str = ""
    nv12_range: Literal["auto", "full", "limited"] = "auto"
    runtime: str = "auto"
    slots: int = 1
    threads: int = 0
    bpu_core: int = -1
    bpu_priority: int = 0
    infer_timeout: float = 2.0
    allow_download: bool = field(default=False, compare=False)
    allow_untrained: bool = field(default=False, compare=False)

    def run_options(self) -> RunOptions:
        """How the model is to be run."""
        return RunOptions(**{each.name: getattr(self, each.name) for each in fields(RunOptions)})

    def select_runtime(self) -> tuple[str, RuntimeKind]:
        """Name and kind of the runtime; `auto` goes by the model file, where one is named.

        Raises:
            RuntimeUnavailableError: There is no such runtime, or none that works here.
        """
        suffix = Path(self.model_path).suffix.lower()
        formats: dict[str, ModelFormat] = {".bin": "bin", ".onnx": "onnx"}
        return select_runtime(self.runtime, formats.get(suffix))


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """How a frame is looked at and how much of the answer is told; cheap to change.

    Attributes:
        fit: How a frame fills the model's input.
        roi: Part of the frame to classify.
        input_range: Range of the camera's own YUV.
        antialias: Take means where a frame shrinks; without, detail too fine for the model's
            input shows as detail that is not there.
        max_pixels: Largest size of a compressed image that is decoded, in pixels.
        top_k: Most results a frame.
        score_threshold: Results with a lower score are left out.
    """

    fit: Fit = "crop"
    roi: Roi | None = None
    input_range: InputRange = "auto"
    antialias: bool = True
    max_pixels: int = MAX_PIXELS
    top_k: int = 5
    score_threshold: float = 0.0


def parse_rgb(text: str) -> tuple[float, float, float]:
    """Read `R,G,B`, as the mean and scale of a `ModelRequest` are written.

    Raises:
        ValueError: The text is not three numbers between commas.
    """
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"'{text}' is not three numbers between commas") from None
    return red, green, blue
