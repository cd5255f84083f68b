"""One image in, one prediction out: the same way for the node, the CLI and every measurement."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.models.catalog import Catalog, ModelSpec, spec_for_file
from efv2_ros.models.modelfile import ModelError
from efv2_ros.models.store import ResolvedModel, resolve
from efv2_ros.runtimes.base import (
    ImageInput,
    ModelFormat,
    RunOptions,
    Runtime,
    RuntimeKind,
    Slot,
    open_runtime,
    select_runtime,
)
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.labels import LabelsError, load_labels
from efv2_ros.vision.nv12 import Fit, InputRange, Nv12Converter, Roi
from efv2_ros.vision.postprocess import Prediction, TopK

Progress = Callable[[int, int | None], None]
"""Told of the bytes received so far and the bytes expected, while a download runs."""


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
        top_k: Most results a frame.
        score_threshold: Results with a lower score are left out.
    """

    fit: Fit = "crop"
    roi: Roi | None = None
    input_range: InputRange = "auto"
    antialias: bool = True
    top_k: int = 5
    score_threshold: float = 0.0


@dataclass(frozen=True, eq=False)
class Model:
    """A model in memory with all that describes it. Made by `load_model`.

    Attributes:
        request: What was asked for.
        file: What was found.
        image: The image the model takes.
        runtime: What runs it.
        labels: A name for each class; an untrained network's say that it is.
    """

    request: ModelRequest
    file: ResolvedModel
    image: ImageInput
    runtime: Runtime
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's name; an untrained one says so."""
        return f"{self.file.spec.name} (untrained)" if self.file.untrained else self.file.spec.name

    def close(self) -> None:
        """Free the runtime."""
        self.runtime.close()


def find_model(request: ModelRequest, progress: Progress | None = None) -> ResolvedModel:
    """The file a request means, checked against its lock file, without loading it.

    Raises:
        ModelError: The catalog has no such model or is broken, there is no such file, or the
            file is damaged.
        RuntimeUnavailableError: There is no such runtime, or none that works here.
    """
    return _find(request, progress)[1]


def _find(request: ModelRequest, progress: Progress | None) -> tuple[str, ResolvedModel]:
    """The name of the runtime, and the file that is for it; see `find_model`."""
    name, kind = request.select_runtime()
    try:
        return name, resolve(
            _describe(request),
            kind.model_format,
            model_path=Path(request.model_path) if request.model_path else None,
            allow_download=request.allow_download,
            allow_untrained=request.allow_untrained,
            progress=progress,
        )
    except OSError as error:  # a name that no file can have, or a folder one may not look into
        raise ModelError(f"cannot look for the model: {error}") from error


def load_model(
    request: ModelRequest, progress: Progress | None = None, *, spare_slots: int = 0
) -> Model:
    """Find, check and load a model.

    Args:
        request: Which, and how to run it.
        progress: See `Progress`.
        spare_slots: Slots beyond those in use at once, for images that are made ready meanwhile.

    Raises:
        ModelError, RuntimeUnavailableError: As `find_model`.
        ModelLoadError: The file is not a model the runtime can run.
        LabelsError: The labels cannot be read or are not one for each class.
    """
    name, file = _find(request, progress)
    spec = file.spec
    image = ImageInput(spec.height, spec.width, spec.nv12_range, spec.mean, spec.scale)
    options = request.run_options()
    options = replace(options, slots=options.slots + spare_slots)
    runtime = open_runtime(file.path, image, name, options)
    try:
        labels = _labels(spec, runtime.info.classes)
    except LabelsError:
        runtime.close()
        raise
    if file.untrained:
        labels = tuple(f"{label} (untrained)" for label in labels)
    return Model(request, file, image, runtime, labels)


def _describe(request: ModelRequest) -> ModelSpec:
    """The catalog's entry, or the description of a file of the user's own."""
    catalog = Catalog.load(*([Path(request.catalog_file)] if request.catalog_file else []))
    entry = catalog[request.model_size]
    given: dict[str, Any] = {
        "mean": request.mean,
        "scale": request.scale,
        "labels": Path(request.labels_file) if request.labels_file else None,
        "nv12_range": None if request.nv12_range == "auto" else request.nv12_range,
    }
    given = {name: value for name, value in given.items() if value is not None}
    path = Path(request.model_path)
    catalogued = {source.filename for source in entry.files.values()}
    if not path.is_file() or path.name in catalogued:
        return replace(entry, **given)
    spec = spec_for_file(path, **given)
    if spec.labels is None and spec.classes == entry.classes:
        return replace(spec, labels=entry.labels)  # the same classes, trained anew
    return spec


def _labels(spec: ModelSpec, classes: int) -> tuple[str, ...]:
    if spec.labels is None:
        return tuple(f"class {class_id}" for class_id in range(classes))
    return load_labels(spec.labels, classes)


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


class Classified(NamedTuple):
    """A prediction, the classifier that made it, and the seconds that each stage took."""

    prediction: Prediction
    classifier: Classifier
    convert: float
    infer: float
    postprocess: float

    @property
    def model(self) -> Model:
        """The model that made the prediction."""
        return self.classifier.model

    def lines(self) -> list[str]:
        """The prediction for people: a score and a label each."""
        labels = self.model.labels
        return [
            f"{score:6.1%} {labels[class_id]}"
            for class_id, score in zip(*self.prediction, strict=True)
        ]


class Prepared(NamedTuple):
    """An image in a slot of the runtime, and the seconds spent on getting it there.

    Attributes:
        lease: Gives the slot back.
        slot: Where the image is.
        convert: Seconds that the conversion took.
        commit: Seconds that making it ready for the model took.
    """

    lease: ExitStack
    slot: Slot
    convert: float
    commit: float


class Inferred(NamedTuple):
    """The model's answer to an image, and the seconds that each stage took.

    Attributes:
        logits: float32 of shape (classes,).
        convert: Seconds that the conversion took.
        infer: Seconds that the model took, from making the image ready for it.
    """

    logits: NDArray[np.float32]
    convert: float
    infer: float


def _converter(model: Model, options: ViewOptions) -> Nv12Converter:
    image = model.image
    return Nv12Converter(
        image.width,
        image.height,
        fit=options.fit,
        crop_pct=model.file.spec.crop_pct,
        roi=options.roi,
        nv12_range=image.nv12_range,
        input_range=options.input_range,
        antialias=options.antialias,
    )


class Classifier:
    """A model and a way of looking at frames. Threads, at most `slots` of them, may share it.

    `classify` does all; its three parts are the stages of a `Pipeline`, in which the next image is
    converted while the model runs.
    """

    def __init__(self, model: Model, options: ViewOptions | None = None) -> None:
        self.model = model
        self.options = options or ViewOptions()
        self._converters: queue.SimpleQueue[Nv12Converter] = queue.SimpleQueue()
        self._top_ks: queue.SimpleQueue[TopK] = queue.SimpleQueue()
        for _ in range(model.runtime.slots):
            self._converters.put(_converter(model, self.options))
            self._top_ks.put(
                TopK(model.runtime.info.classes, self.options.top_k, self.options.score_threshold)
            )

    def classify(self, frame: Frame) -> Classified:
        """Classify one frame.

        Raises:
            FrameError: The frame cannot be turned into the model's input.
            InferenceError: The runtime failed on it.
        """
        return self.finish(self.work(self.prepare(frame)))

    def prepare(self, frame: Frame) -> Prepared:
        """Convert a frame to where the model reads it; waits for a slot of the runtime.

        Returns:
            What `work` or `discard` must be called with, to free the slot.

        Raises:
            FrameError: The frame cannot be turned into the model's input.
            InferenceError: The runtime failed, or is closed.
        """
        with ExitStack() as lease:
            slot = lease.enter_context(self.model.runtime.slot())
            converter = self._converters.get()
            try:
                start = time.perf_counter()
                converter.convert_into(frame, slot.nv12)
                converted = time.perf_counter()
            finally:
                self._converters.put(converter)
            slot.commit()
            commit = time.perf_counter() - converted
            return Prepared(lease.pop_all(), slot, converted - start, commit)

    def discard(self, prepared: Prepared) -> None:
        """Free the slot of a frame that will not be classified."""
        prepared.lease.close()

    def work(self, prepared: Prepared) -> Inferred:
        """Run the model and free the slot.

        Raises:
            InferenceError: The runtime failed.
        """
        with prepared.lease:
            start = time.perf_counter()
            logits = prepared.slot.infer()
            infer = time.perf_counter() - start
        return Inferred(logits, prepared.convert, prepared.commit + infer)

    def finish(self, inferred: Inferred) -> Classified:
        """Pick the best classes."""
        top_k = self._top_ks.get()
        try:
            start = time.perf_counter()
            prediction = top_k(inferred.logits)
            postprocess = time.perf_counter() - start
        finally:
            self._top_ks.put(top_k)
        return Classified(prediction, self, inferred.convert, inferred.infer, postprocess)
