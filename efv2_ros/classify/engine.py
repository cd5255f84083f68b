"""Classify the streams of cameras with one model; all can be changed while frames arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from efv2_ros.classify.classifier import Classified, Classifier, Inferred, Prepared
from efv2_ros.classify.model import Model, load_model
from efv2_ros.classify.options import ONLY_CAMERA, ModelRequest, ViewOptions
from efv2_ros.classify.pipeline import DropCause, Pipeline, QueuePolicy
from efv2_ros.vision.frame import Frame

if TYPE_CHECKING:
    from efv2_ros.models.download import DownloadProgress


class CameraFrame(NamedTuple):
    """A frame, and the name of its camera."""

    camera: str
    frame: Frame


class Cameras:
    """The classifiers of all cameras as one `Processor`: they share the model and its slots.

    Args:
        model: The model.
        classifiers: A classifier with this model for each camera, by its name.
    """

    def __init__(self, model: Model, classifiers: Mapping[str, Classifier]) -> None:
        self.model, self.classifiers = model, classifiers

    def prepare(self, item: CameraFrame) -> tuple[Classifier, Prepared]:
        """See `Classifier.prepare`."""
        classifier = self.classifiers[item.camera]
        return classifier, classifier.prepare(item.frame)

    def discard(self, prepared: tuple[Classifier, Prepared]) -> None:
        """See `Classifier.discard`."""
        classifier, own = prepared
        classifier.discard(own)

    def work(self, prepared: tuple[Classifier, Prepared]) -> tuple[Classifier, Inferred]:
        """See `Classifier.work`."""
        classifier, own = prepared
        return classifier, classifier.work(own)

    def finish(self, worked: tuple[Classifier, Inferred]) -> Classified:
        """See `Classifier.finish`."""
        classifier, inferred = worked
        return classifier.finish(inferred)


class Engine:
    """A loaded model and the pipeline that feeds it.

    Args:
        request: The first model.
        views: For each camera, by its name, how its frames are converted and how many results
            each one gets.
        on_outcome: See `Pipeline`.
        policy: See `Pipeline`; each camera is a source.
        on_dropped: See `Pipeline`.
        on_progress: See `load_model`.
        should_stop: See `load_model`. `close` stops a download too.

    Raises:
        Efv2Error: What `load_model` raises.
    """

    def __init__(
        self,
        request: ModelRequest,
        views: Mapping[str, ViewOptions],
        on_outcome: Callable[[CameraFrame, Classified | Exception, float], None],
        *,
        policy: QueuePolicy = "latest",
        on_dropped: Callable[[CameraFrame, DropCause], None] = lambda item, cause: None,
        on_progress: DownloadProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._closing = False
        model = self._load(request)
        self._cameras = Cameras(
            model, {name: Classifier(model, view) for name, view in views.items()}
        )
        self._pipeline: Pipeline[CameraFrame, Classified] = Pipeline(
            self._cameras,
            on_outcome,
            slots=request.slots,
            policy=policy,
            source_of=lambda item: item.camera,
            on_dropped=on_dropped,
        )
        # A single thread, so that changes take effect in the order of the calls.
        self._changes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-change")

    @property
    def model(self) -> Model:
        """The model of the frames whose preparation starts from now on."""
        return self._cameras.model

    @property
    def classifiers(self) -> Mapping[str, Classifier]:
        """The classifiers of these frames, by the names of the cameras."""
        return self._cameras.classifiers

    def submit(self, frame: Frame, camera: str = ONLY_CAMERA) -> None:
        """Add a frame of a camera; see `Pipeline.submit`."""
        self._pipeline.submit(CameraFrame(camera, frame))

    def withdraw(self, camera: str) -> None:
        """Drop the frames of a camera that wait; see `Pipeline.withdraw`."""
        self._pipeline.withdraw(camera)

    def drain(self, timeout_s: float) -> bool:
        """See `Pipeline.drain`."""
        return self._pipeline.drain(timeout_s)

    def change(
        self,
        request: ModelRequest,
        views: Mapping[str, ViewOptions],
        on_done: Callable[[Exception | None], None],
    ) -> None:
        """Load another model, change the options or the cameras, while the old ones keep working.

        Returns at once. Every frame is classified, by the old or by the new classifier, and all
        results of the old one come before those of the new one.

        Args:
            request: The new model.
            views: The new options of each camera. Frames of a camera that is not among them must
                not be submitted any more, and it must be withdrawn.
            on_done: Called in another thread: with None after the last result of the old
                classifiers has been delivered, or with the exception because of which the old
                classifiers stay in use.
        """
        self._changes.submit(self._change, request, views, on_done)

    def close(self) -> None:
        """Stop a download, wait for running inferences and deliveries, then free the model."""
        self._closing = True
        self._changes.shutdown(wait=True, cancel_futures=True)
        self._pipeline.close()
        self.model.close()

    def _load(self, request: ModelRequest) -> Model:
        return load_model(
            request, self._on_progress, should_stop=self._is_stopping, pipelined=True
        )

    def _is_stopping(self) -> bool:
        return self._closing or (self._should_stop is not None and self._should_stop())

    def _change(
        self,
        request: ModelRequest,
        views: Mapping[str, ViewOptions],
        on_done: Callable[[Exception | None], None],
    ) -> None:
        old = self._cameras
        try:
            model = old.model if request == old.model.request else self._load(request)
            # A camera of which nothing changes keeps its classifier, and what it smooths.
            kept = old.classifiers if model is old.model else {}
            new = {
                name: kept[name]
                if name in kept and kept[name].options == view
                else Classifier(model, view)
                for name, view in views.items()
            }
        except Exception as error:  # whatever went wrong, the old model stays in use
            on_done(error)
            return
        self._cameras = Cameras(model, new)
        self._pipeline.replace(self._cameras)
        if model is not old.model:
            old.model.close()
        on_done(None)
