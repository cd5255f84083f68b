"""The classifier: convert a frame, run the model, pick the best classes.

The node, the command line, replay, evaluation and benchmark all use it.
"""

from __future__ import annotations

import queue
import time
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.classify.model import Model
from efv2_ros.classify.options import ViewOptions
from efv2_ros.classify.postprocess import Prediction, TopK
from efv2_ros.classify.smoothing import smoother
from efv2_ros.runtimes.base import Slot
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import Nv12Converter


class ScoredClass(NamedTuple):
    """One class of a prediction.

    Attributes:
        class_id: Index into the model's output.
        label: Name of the class.
        score: Softmax probability, 0..1.
    """

    class_id: int
    label: str
    score: float


def line_of(score: float, label: str) -> str:
    """A class as a line of text that is drawn on an image."""
    return f"{score:6.1%} {label}"


class Classified(NamedTuple):
    """A prediction, the classifier that made it, and how long each stage took.

    Attributes:
        prediction: Ids and scores of the best classes.
        classifier: The classifier that made the prediction.
        convert: Seconds for the conversion to NV12.
        infer: Seconds for the model.
        postprocess: Seconds for softmax and top-k.
    """

    prediction: Prediction
    classifier: Classifier
    convert: float
    infer: float
    postprocess: float

    @property
    def model(self) -> Model:
        """The model that made the prediction."""
        return self.classifier.model

    @property
    def classes(self) -> tuple[ScoredClass, ...]:
        """The best classes with their labels, best first; none below `score_threshold`."""
        labels = self.model.labels
        return tuple(
            ScoredClass(class_id, labels[class_id], score)
            for class_id, score in zip(*self.prediction, strict=True)
        )

    def lines(self) -> list[str]:
        """The classes as text, one line each: score and label."""
        return [line_of(score, label) for _, label, score in self.classes]


class Prepared(NamedTuple):
    """An image in a slot of the runtime, and the seconds spent on getting it there.

    Attributes:
        lease: Gives the slot back.
        slot: Where the image is.
        stamp_ns: Stamp of the image in nanoseconds.
        convert: Seconds that the conversion took.
        commit: Seconds that making it ready for the model took.
    """

    lease: ExitStack
    slot: Slot
    stamp_ns: int
    convert: float
    commit: float


class Inferred(NamedTuple):
    """The model's answer to an image, and the seconds that each stage took.

    Attributes:
        logits: float32 of shape (classes,).
        stamp_ns: Stamp of the image in nanoseconds.
        convert: Seconds that the conversion took.
        infer: Seconds that the model took, from making the image ready for it.
    """

    logits: NDArray[np.float32]
    stamp_ns: int
    convert: float
    infer: float


def converter(model: Model, options: ViewOptions) -> Nv12Converter:
    """Make the converter that turns frames into a model's input."""
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
        max_pixels=options.max_pixels,
    )


class Classifier:
    """Classifies frames with a model.

    ```python
    with load_model("s0") as model:
        classifier = Classifier(model, ViewOptions(top_k=3))
        for class_id, label, score in classifier.classify(read_photo("cat.jpg")).classes:
            print(f"{score:6.1%} {label}")
    ```

    Threads may share a classifier, at most `ModelRequest.slots` of them at once. `classify` does
    the whole work; `prepare`, `work` and `finish` are its three stages, which a `Pipeline` runs
    side by side: it converts the next frame while the model runs. With `smoothing`, `finish` must
    be called by one thread at a time, in the order of the frames, as a `Pipeline` does.

    Args:
        model: The model; it stays the caller's to close.
        options: How to look at a frame, and how many classes to return.
    """

    def __init__(self, model: Model, options: ViewOptions | None = None) -> None:
        self.model = model
        self.options = options or ViewOptions()
        self._smoother = smoother(self.options.smoothing, self.options.smoothing_time)
        self._converters: queue.SimpleQueue[Nv12Converter] = queue.SimpleQueue()
        self._top_ks: queue.SimpleQueue[TopK] = queue.SimpleQueue()
        for _ in range(model.runtime.slots):
            self._converters.put(converter(model, self.options))
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
            own = self._converters.get()
            try:
                start = time.perf_counter()
                own.convert_into(frame, slot.nv12)
                converted = time.perf_counter()
            finally:
                self._converters.put(own)
            slot.commit()
            commit = time.perf_counter() - converted
            stamp_ns = frame.header.nanoseconds
            return Prepared(lease.pop_all(), slot, stamp_ns, converted - start, commit)

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
        return Inferred(logits, prepared.stamp_ns, prepared.convert, prepared.commit + infer)

    def finish(self, inferred: Inferred) -> Classified:
        """Pick the best classes, of this frame and the ones before if `smoothing` says so."""
        top_k = self._top_ks.get()
        try:
            start = time.perf_counter()
            logits = inferred.logits
            if self._smoother is not None:
                logits = self._smoother(logits, inferred.stamp_ns)
            prediction = top_k(logits)
            postprocess = time.perf_counter() - start
        finally:
            self._top_ks.put(top_k)
        return Classified(prediction, self, inferred.convert, inferred.infer, postprocess)
