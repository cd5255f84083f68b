"""Images through one classifier, or two to compare: decoded, converted, inferred side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from efv2_ros.classify.classifier import Classifier, Inferred, Prepared
from efv2_ros.classify.pipeline import Pipeline
from efv2_ros.evaluation.checkpoint import Answer, FileVersion, State
from efv2_ros.evaluation.dataset import Image
from efv2_ros.evaluation.statistics import cosine
from efv2_ros.pictures.photo import read_photo
from efv2_ros.runtimes.base import DeviceLostError, InferenceError
from efv2_ros.vision.frame import FrameError

TOP = 5
"""Best classes that count for the lenient accuracy."""

Progress = Callable[[Image, Answer | None], None]
"""Told of each image that is done, and its answer; None where there is none."""


class Failure(NamedTuple):
    """An image without an answer.

    Attributes:
        image: The image.
        cause: Short, to count by.
        reason: In a sentence.
    """

    image: Image
    cause: str
    reason: str


class _Stages:
    """An image file to answers, in the steps of a `Pipeline`."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self._classifiers = classifiers

    def prepare(self, image: Image) -> list[Prepared]:
        frame = read_photo(image.path)
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


class Evaluation:
    """The answers to images, from as far as `state` has come.

    Args:
        images: The images, in the order in which they are looked at.
        classifiers: One, or two to compare; each tells at least `TOP` classes.
        state: Knows the answers there are and keeps new ones.

    Attributes:
        answers: What is known, by the images' names.
        failures: Images without an answer, in the order of the images. `state` does not keep them:
            the next time they are tried again.
    """

    def __init__(
        self,
        images: Sequence[Image],
        classifiers: Sequence[Classifier],
        state: State,
    ) -> None:
        self._classifiers = classifiers
        self._state = state
        self._progress: Progress = lambda image, answer: None
        self._versions: dict[str, FileVersion] = {}
        self._error: Exception | None = None
        self.answers: dict[str, Answer] = {}
        self.failures: list[Failure] = []
        self._left: list[Image] = []
        self._total = len(images)
        for image in images:
            version = FileVersion.of(image.path)
            answer = state.answer(image, version)
            if answer is None:
                self._left.append(image)
                self._versions[image.name] = version
            else:
                self.answers[image.name] = answer

    def run(
        self,
        slots: int,
        is_stopped: Callable[[], bool] = lambda: False,
        progress: Progress = lambda image, answer: None,
    ) -> bool:
        """Look at the images that are left.

        Args:
            slots: Images the models work on at once.
            is_stopped: Asked before each image; once true, only what runs is finished.
            progress: See `Progress`.

        Returns:
            Whether all images are done.

        Raises:
            DeviceLostError: The accelerator does not answer any more.
            EvaluationError: The state cannot be kept.
        """
        self._progress = progress
        pipeline = Pipeline(_Stages(self._classifiers), self._deliver, slots=slots, policy="all")
        try:
            for image in self._left:
                if self._error or is_stopped():
                    break
                pipeline.submit(image)
            else:
                pipeline.drain(threading.TIMEOUT_MAX)
        finally:
            pipeline.close()
        if self._error:
            raise self._error
        return len(self.answers) + len(self.failures) == self._total

    def _deliver(self, image: Image, outcome: Answer | Exception, waited: float) -> None:
        try:
            if isinstance(outcome, Exception):
                self.failures.append(_failure(image, outcome))
                self._progress(image, None)
            else:
                self._state.add(image, self._versions[image.name], outcome)
                self.answers[image.name] = outcome
                self._progress(image, outcome)
        except Exception as error:  # the run ends with it
            self._error = error


def _failure(image: Image, error: Exception) -> Failure:
    """Why an image has no answer; raises what is not the image's fault."""
    match error:
        case DeviceLostError():
            raise error
        case FrameError():
            return Failure(image, error.fault, str(error))
        case InferenceError():
            return Failure(image, "inference", str(error))
    raise error
