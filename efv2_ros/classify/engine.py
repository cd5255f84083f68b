"""Classify a stream of frames; the model can be changed while frames arrive."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from efv2_ros.classify.classifier import Classified, Classifier
from efv2_ros.classify.model import Model, load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.classify.pipeline import DropCause, Pipeline, QueuePolicy
from efv2_ros.vision.frame import Frame

if TYPE_CHECKING:
    from efv2_ros.models.download import DownloadProgress


class Engine:
    """A loaded model and the pipeline that feeds it.

    Args:
        request: The first model.
        options: How frames are converted, and how many results each one gets.
        on_outcome: See `Pipeline`.
        policy: See `Pipeline`.
        on_dropped: See `Pipeline`.
        on_progress: See `load_model`.
        should_stop: See `load_model`. `close` stops a download too.

    Raises:
        Efv2Error: What `load_model` raises.
    """

    def __init__(
        self,
        request: ModelRequest,
        options: ViewOptions,
        on_outcome: Callable[[Frame, Classified | Exception, float], None],
        *,
        policy: QueuePolicy = "latest",
        on_dropped: Callable[[Frame, DropCause], None] = lambda frame, cause: None,
        on_progress: DownloadProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._closing = False
        self.classifier = Classifier(self._load(request), options)
        self._pipeline: Pipeline[Frame, Classified] = Pipeline(
            self.classifier,
            on_outcome,
            slots=request.slots,
            policy=policy,
            on_dropped=on_dropped,
        )
        # A single thread, so that changes take effect in the order of the calls.
        self._changes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-change")

    def submit(self, frame: Frame) -> None:
        """See `Pipeline.submit`."""
        self._pipeline.submit(frame)

    def drain(self, timeout_s: float) -> bool:
        """See `Pipeline.drain`."""
        return self._pipeline.drain(timeout_s)

    def change(
        self,
        request: ModelRequest,
        options: ViewOptions,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        """Load another model, change the options, or both, while the old ones keep working.

        Returns at once. Every frame is classified, by the old or by the new classifier, and all
        results of the old one come before those of the new one.

        Args:
            request: The new model.
            options: The new options.
            on_done: Called in another thread: with None after the last result of the old
                classifier has been delivered, or with the exception because of which the old
                classifier stays in use.
        """
        self._changes.submit(self._change, request, options, on_done)

    def close(self) -> None:
        """Stop a download, wait for running inferences and deliveries, then free the model."""
        self._closing = True
        self._changes.shutdown(wait=True, cancel_futures=True)
        self._pipeline.close()
        self.classifier.model.close()

    def _load(self, request: ModelRequest) -> Model:
        return load_model(
            request, self._on_progress, should_stop=self._is_stopping, pipelined=True
        )

    def _is_stopping(self) -> bool:
        return self._closing or (self._should_stop is not None and self._should_stop())

    def _change(
        self,
        request: ModelRequest,
        options: ViewOptions,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        old = self.classifier
        try:
            same = request == old.model.request
            model = old.model if same else self._load(request)
            new = Classifier(model, options)
        except Exception as error:  # whatever went wrong, the old model stays in use
            on_done(error)
            return
        self.classifier = new
        self._pipeline.replace(self.classifier)
        if model is not old.model:
            old.model.close()
        on_done(None)
