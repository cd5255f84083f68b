"""The task of an evaluation, which runs in workers: answer a group of images."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import cv2

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import Model, load_model, with_absolute_paths
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.evaluation.answering import Failure, answer_images
from efv2_ros.evaluation.checkpoint import Answer
from efv2_ros.evaluation.dataset import Image
from efv2_ros.workers.errors import WorkersError
from efv2_ros.workers.lending import Lending


@dataclass(frozen=True)
class Job:
    """What is the same for all images of an evaluation.

    Attributes:
        requests: The models.
        versions: What each of them must turn out to be, from `version_of`.
        view: The handling of each image.
    """

    requests: tuple[ModelRequest, ...]
    versions: tuple[str, ...]
    view: ViewOptions

    @classmethod
    def of(cls, classifiers: Sequence[Classifier], threads: int) -> Job:
        """Describe classifiers of this process.

        Args:
            classifiers: One, or two to compare.
            threads: CPU threads per inference, for models whose requests name no number.
        """
        models = [each.model for each in classifiers]
        requests = (
            replace(
                with_absolute_paths(each.request),
                runtime=each.runtime.info.name,
                threads=each.request.threads or threads,
            )
            for each in models
        )
        return cls(tuple(requests), tuple(map(version_of, models)), classifiers[0].options)


def version_of(model: Model) -> str:
    """Name the model file and the libraries that its answers depend on."""
    info = model.runtime.info
    return (
        f"{info.name} {info.version} with a model of SHA-256 {model.file.sha256}, "
        f"and OpenCV {cv2.__version__}"
    )


def answer_group(job: Job, images: Sequence[Image]) -> list[Answer | Failure]:
    """Classify images; what came of them, in their order.

    Raises:
        WorkersError: The models or libraries of this machine are not those of the job.
        DeviceLostError: The accelerator does not answer any more.
        Efv2Error: A model cannot be loaded; see `load_model`.
    """
    outcomes: list[Answer | Failure] = []
    with _loaded(job) as loaded:
        answer_images(loaded.classifiers, images, lambda _, outcome: outcomes.append(outcome))
    return outcomes


class _Loaded:
    """The classifiers of a job."""

    def __init__(self, job: Job) -> None:
        # For images of a model's size, OpenCV's threads cost more than they save.
        cv2.setNumThreads(1)
        with ExitStack() as stack:
            models = [
                stack.enter_context(load_model(each, pipelined=True)) for each in job.requests
            ]
            for model, version in zip(models, job.versions, strict=True):
                if version_of(model) != version:
                    raise WorkersError(
                        f"the worker {platform.node()} has {version_of(model)}; needed: {version}"
                    )
            self.classifiers = [Classifier(each, job.view) for each in models]
            self._models = stack.pop_all()

    def close(self) -> None:
        self._models.close()


_loaded = Lending(_Loaded)
