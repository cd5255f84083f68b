"""From images to answers: reads and classifies them, or says why one has no answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from efv2_ros.classify.classifier import Classifier, Inferred, Prepared
from efv2_ros.classify.pipeline import Pipeline
from efv2_ros.evaluation.checkpoint import Answer
from efv2_ros.evaluation.dataset import Image
from efv2_ros.evaluation.statistics import cosine
from efv2_ros.pictures.photo import read_photo
from efv2_ros.runtimes.base import DeviceLostError, InferenceError
from efv2_ros.vision.frame import FrameError


class Failure(NamedTuple):
    """An image that could not be classified.

    Attributes:
        image: The image.
        cause: One word, to count failures by.
        reason: The cause in a sentence.
    """

    image: Image
    cause: str
    reason: str


def answer_images(
    classifiers: Sequence[Classifier],
    images: Iterable[Image],
    on_outcome: Callable[[Image, Answer | Failure], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Classify images.

    Args:
        classifiers: One, or two to compare.
        images: The images.
        on_outcome: Called with each image, in their order, and what came of it. Calls come from
            another thread and never overlap.
        should_stop: Asked before each image. Once it returns True, the images being classified
            are finished and no other is begun.

    Raises:
        DeviceLostError: The accelerator does not answer any more.
        Exception: What `on_outcome` raises.
    """
    errors: list[Exception] = []

    def deliver(image: Image, outcome: Answer | Exception, waited: float) -> None:
        try:
            on_outcome(
                image, _failure(image, outcome) if isinstance(outcome, Exception) else outcome
            )
        except Exception as error:
            errors.append(error)

    slots = min(each.model.request.slots for each in classifiers)
    pipeline = Pipeline(_ImageStages(classifiers), deliver, slots=slots, policy="all")
    try:
        for image in images:
            if errors or should_stop():
                break
            pipeline.submit(image)
        else:
            pipeline.drain(threading.TIMEOUT_MAX)
    finally:
        pipeline.close()
    if errors:
        raise errors[0]


def _failure(image: Image, error: Exception) -> Failure:
    """Describe why an image has no answer; re-raise what is not the image's fault."""
    match error:
        case DeviceLostError():
            raise error
        case FrameError():
            return Failure(image, error.fault, str(error))
        case InferenceError():
            return Failure(image, "inference", str(error))
    raise error


class _ImageStages:
    """The stages of a `Pipeline` that turns image files into answers."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self._classifiers = classifiers

    def prepare(self, image: Image) -> list[Prepared]:
        frame = read_photo(image.path, self._classifiers[0].options.max_pixels)
        prepared: list[Prepared] = []
        try:
            for classifier in self._classifiers:
                prepared.append(classifier.prepare(frame))
        except BaseException:
            self.discard(prepared)
            raise
        return prepared

    def discard(self, prepared: list[Prepared]) -> None:
        for classifier, each in zip(self._classifiers, prepared, strict=False):
            classifier.discard(each)

    def work(self, prepared: list[Prepared]) -> list[Inferred]:
        try:
            return [
                classifier.work(each)
                for classifier, each in zip(self._classifiers, prepared, strict=True)
            ]
        finally:
            self.discard(prepared)  # what an error left; the rest is free already

    def finish(self, inferred: list[Inferred]) -> Answer:
        try:
            best = tuple(
                classifier.finish(each).prediction.class_ids
                for classifier, each in zip(self._classifiers, inferred, strict=True)
            )
        except ValueError as error:  # logits that are not finite
            raise InferenceError(str(error)) from error
        if len(inferred) == 1:
            return Answer(best)
        first, second = inferred
        return Answer(best, cosine(first.logits, second.logits))
