"""Evaluation of one classifier, or of two to compare, over images whose classes are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import Model
from efv2_ros.classify.options import ViewOptions
from efv2_ros.evaluation.answering import Failure, answer_images
from efv2_ros.evaluation.checkpoint import Answer, Checkpoint, FileVersion, describe
from efv2_ros.evaluation.classes import Classes
from efv2_ros.evaluation.dataset import Dataset, Image, find_images
from efv2_ros.evaluation.statistics import scipy_stats
from efv2_ros.evaluation.tasks import Job, answer_group
from efv2_ros.evaluation.truth import Truth
from efv2_ros.vision.compressed import MAX_PIXELS
from efv2_ros.vision.geometry import Fit
from efv2_ros.workers.errors import WorkerDiedError
from efv2_ros.workers.workers import Workers

TOP = 5
"""Number of best classes that count for top-5 accuracy."""

GROUP = 32
"""Number of images of a task for workers."""

AnswerCallback = Callable[[Image, Answer | None], None]
"""Called once for each evaluated image, with its answer or, if it has none, with None."""


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
        workers: Workers[int] | None = None,
        threads: int = 0,
    ) -> bool:
        """Evaluate the images that have no answer yet.

        Args:
            on_answer: See `AnswerCallback`. Calls may come from another thread and never overlap.
            should_stop: Asked before each image. Once it returns True, the images being
                classified are finished and no other is begun; workers give them up.
            workers: What classifies the images; None is this process. Each needs the folder at
                the same place, and the same models.
            threads: CPU threads per inference in workers; 0 lets the runtime decide. A number in
                a model's request comes first.

        Returns:
            Whether every image has an answer or a failure.

        Raises:
            DeviceLostError: The accelerator does not answer any more.
            EvaluationError: The checkpoint cannot be written.
            WorkersError: The workers are gone, or have other models.
            Efv2Error: A worker cannot load a model; see `load_model`.
        """
        self._on_answer = on_answer
        should_stop = should_stop or (lambda: False)
        if workers is None:
            answer_images(self._classifiers, self._left, self._take, should_stop)
        else:
            self._run_in(workers, Job.of(self._classifiers, threads), should_stop)
        return len(self.answers) + len(self.failures) == len(self.dataset.images)

    def _run_in(self, workers: Workers[int], job: Job, should_stop: Callable[[], bool]) -> None:
        """Have workers answer the images in groups, which may end in any order."""
        groups = [self._left[first : first + GROUP] for first in range(0, len(self._left), GROUP)]
        for number, group in enumerate(groups):
            images = [each._replace(path=each.path.absolute()) for each in group]
            workers.submit(number, answer_group, job, images)
        for number, found in workers.results(should_stop):
            outcomes = found
            if isinstance(found, WorkerDiedError):
                outcomes = [Failure(each, "worker", str(found)) for each in groups[number]]
            elif isinstance(found, Exception):
                raise found
            for image, outcome in zip(groups[number], outcomes, strict=True):
                self._take(image, _here(outcome, image))
        places = {each: place for place, each in enumerate(self.dataset.images)}
        self.failures.sort(key=lambda each: places[each.image])

    def _take(self, image: Image, outcome: Answer | Failure) -> None:
        answer = None
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
        else:
            answer = outcome
            self.checkpoint.add(image, self._versions[image.name], answer)
            self.answers[image.name] = answer
        if self._on_answer is not None:
            self._on_answer(image, answer)


def _here(outcome: Answer | Failure, image: Image) -> Answer | Failure:
    """Have a worker's failure name the image's path as this process does."""
    if isinstance(outcome, Answer):
        return outcome
    reason = outcome.reason.replace(str(outcome.image.path), str(image.path))
    return outcome._replace(image=image, reason=reason)


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
