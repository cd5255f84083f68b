"""Evaluation of one classifier, or of two to compare, over images whose classes are known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from efv2_ros.classify.classifier import Classifier, Inferred, Prepared
from efv2_ros.classify.model import Model
from efv2_ros.classify.options import ViewOptions
from efv2_ros.classify.pipeline import Pipeline
from efv2_ros.evaluation.checkpoint import Answer, Checkpoint, FileVersion, describe
from efv2_ros.evaluation.classes import Classes
from efv2_ros.evaluation.dataset import Dataset, Image, find_images
from efv2_ros.evaluation.statistics import cosine, scipy_stats
from efv2_ros.evaluation.truth import Truth
from efv2_ros.pictures.photo import read_photo
from efv2_ros.runtimes.base import DeviceLostError, InferenceError
from efv2_ros.vision.compressed import MAX_PIXELS
from efv2_ros.vision.frame import FrameError
from efv2_ros.vision.geometry import Fit

TOP = 5
"""Number of best classes that count for top-5 accuracy."""

AnswerCallback = Callable[[Image, Answer | None], None]
"""Called once for each evaluated image, with its answer or, if it has none, with None."""


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


class Evaluation:
    """The answers to the images of a data set. Made by `open_evaluation`.

    Images that the checkpoint knows are not evaluated again, unless their files changed.

    Args:
        dataset: The images, in the order in which they are evaluated.
        classifiers: One, or two to compare. Each returns at least `TOP` classes.
        checkpoint: Known answers, and where new ones are kept; the evaluation closes it.

    Attributes:
        dataset: As given.
        models: The classifiers' models.
        checkpoint: As given.
        answers: Known answers by the images' names.
        failures: Images without an answer, in the order of the images. The checkpoint does not
            keep them: the next run tries them again.
    """

    def __init__(
        self, dataset: Dataset, classifiers: Sequence[Classifier], checkpoint: Checkpoint
    ) -> None:
        self.dataset = dataset
        self.models = tuple(each.model for each in classifiers)
        self.checkpoint = checkpoint
        self.answers: dict[str, Answer] = {}
        self.failures: list[Failure] = []
        self._classifiers = classifiers
        self._on_answer: AnswerCallback | None = None
        self._error: Exception | None = None
        self._versions: dict[str, FileVersion] = {}
        self._left: list[Image] = []
        for image in dataset.images:
            version = FileVersion.of(image.path)
            answer = checkpoint.answer(image, version)
            if answer is None:
                self._left.append(image)
                self._versions[image.name] = version
            else:
                self.answers[image.name] = answer

    def __enter__(self) -> Evaluation:
        return self

    def __exit__(self, *_: object) -> None:
        self.checkpoint.close()

    def run(
        self,
        on_answer: AnswerCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> bool:
        """Evaluate the images that have no answer yet.

        Args:
            on_answer: See `AnswerCallback`. Calls come from another thread and never overlap.
            should_stop: Asked before each image. Once it returns True, the images being
                classified are finished and no other is begun.

        Returns:
            Whether every image has an answer or a failure.

        Raises:
            DeviceLostError: The accelerator does not answer any more.
            EvaluationError: The checkpoint cannot be written.
        """
        self._on_answer = on_answer
        slots = min(model.request.slots for model in self.models)
        stages = _ImageStages(self._classifiers)
        pipeline = Pipeline(stages, self._deliver, slots=slots, policy="all")
        try:
            for image in self._left:
                if self._error or (should_stop is not None and should_stop()):
                    break
                pipeline.submit(image)
            else:
                pipeline.drain(threading.TIMEOUT_MAX)
        finally:
            pipeline.close()
        if self._error:
            raise self._error
        return len(self.answers) + len(self.failures) == len(self.dataset.images)

    def _deliver(self, image: Image, outcome: Answer | Exception, waited: float) -> None:
        try:
            answer = None
            if isinstance(outcome, Exception):
                self.failures.append(_failure(image, outcome))
            else:
                answer = outcome
                self.checkpoint.add(image, self._versions[image.name], answer)
                self.answers[image.name] = answer
            if self._on_answer is not None:
                self._on_answer(image, answer)
        except Exception as error:  # `run` ends and raises it
            self._error = error


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


def open_evaluation(
    folder: Path,
    models: Sequence[Model],
    *,
    truth_file: Path | None = None,
    limit: int | None = None,
    fit: Fit = "crop",
    antialias: bool = True,
    max_pixels: int = MAX_PIXELS,
    restart: bool = False,
) -> Evaluation:
    """Find the images and their classes, and open the checkpoint of an interrupted run.

    ```python
    with load_models([ModelRequest("s0", slots=2)]) as models:
        with open_evaluation(Path("imagenet/val"), models, limit=1000) as evaluation:
            evaluation.run()
            print(summarize(evaluation)["models"][0]["top1"]["percent"])
    ```

    Args:
        folder: The images; see `find_images`.
        models: One model, or two to compare; see `load_models`.
        truth_file: The images' classes, if the folder does not tell them; see `Truth`.
        limit: Evaluate only so many images; see `Dataset.limited`.
        fit: See `ViewOptions`.
        antialias: See `ViewOptions`.
        max_pixels: See `ViewOptions`.
        restart: Ignore the answers of an interrupted run.

    Raises:
        EvaluationError: There is no image of a known class, a file cannot be read, or SciPy is
            missing, without which there would be no summary.
    """
    scipy_stats()
    classes = Classes.of(models[0])
    truth = Truth(truth_file, classes) if truth_file else None
    dataset = find_images(folder, classes, truth)
    if limit is not None:
        dataset = dataset.limited(limit)
    view = ViewOptions(fit, antialias=antialias, max_pixels=max_pixels, top_k=TOP)
    classifiers = [Classifier(model, view) for model in models]
    description = describe(folder, truth, limit, classifiers)
    return Evaluation(dataset, classifiers, Checkpoint(description, restart=restart))
